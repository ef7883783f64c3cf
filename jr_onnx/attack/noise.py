"""Random numbers that belong to a sample, not to a batch.

Every number is a function of (seed, stream, sample index, position): attacking sample 17 alone, in a batch of 500
or on another shard draws the same noise. The generator is SplitMix64 (Steele, Lea and Flood, 2014), whose state
after j draws is `start + j * GAMMA` and can therefore be evaluated anywhere without history; `start` is a hash of
the key. All arithmetic is modulo 2**64 on the host, so that results do not depend on the device either.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import torch

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Noise:
    """A family of random streams under one seed."""

    def __init__(self, seed: int) -> None:
        """Fix the seed, any integer; only its lowest 64 bits count."""
        self.seed = seed & 0xFFFFFFFFFFFFFFFF

    def uniform(self, stream: str, indices: Indices, count: int, step: int = 0) -> npt.NDArray[np.float64]:
        """Draw from [0, 1).

        Args:
            stream: What the numbers are for; two streams are independent.
            indices: Global sample indices (N,).
            count: Numbers per sample.
            step: Iteration or restart, a further key.

        Returns:
            Doubles (N, count).
        """
        return np.asarray(self.words(stream, indices, count, step) >> np.uint64(11), dtype=np.float64) * 2.0**-53

    def normal(self, stream: str, indices: Indices, count: int, step: int = 0) -> npt.NDArray[np.float64]:
        """Draw from the standard normal distribution (Box and Muller), as (N, count)."""
        half = (count + 1) // 2
        pairs = self.uniform(stream, indices, 2 * half, step)
        radius = np.sqrt(-2.0 * np.log1p(-pairs[:, :half]))  # 1 - u is in (0, 1]: the logarithm is finite
        angle = 2.0 * np.pi * pairs[:, half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]

    def words(self, stream: str, indices: Indices, count: int, step: int = 0) -> Words:
        """Draw 64-bit words, as (N, count)."""
        with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
            key = _mix(np.uint64(self.seed) + _GAMMA)
            key = _mix(key ^ np.uint64(zlib.crc32(stream.encode())))
            key = _mix(key + np.uint64(step & 0xFFFFFFFFFFFFFFFF) * _GAMMA)
            starts = _mix(key ^ _mix(indices.astype(np.int64).view(np.uint64) + _GAMMA))
            positions = np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
            return _mix(starts[:, None] + positions[None, :])

    def scalar(self, stream: str, step: int = 0) -> float:
        """Draw one number of [0, 1) that is shared by all samples."""
        return float(self.uniform(stream, np.zeros(1, dtype=np.int64), 1, step)[0, 0])

    def word(self, stream: str, step: int = 0) -> int:
        """Draw one non-negative 63-bit integer that is shared by all samples."""
        return int(self.words(stream, np.zeros(1, dtype=np.int64), 1, step)[0, 0] >> np.uint64(1))


def as_tensor(values: npt.NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    """Reshape draws (N, count) to the shape of `like` (N, ...), on its device and in its dtype."""
    return torch.from_numpy(values).to(device=like.device, dtype=like.dtype).reshape(like.shape)


def _mix(words: Words | np.uint64) -> Words:
    """Scramble words (the output function of SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(words, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        return mixed ^ (mixed >> np.uint64(31))
