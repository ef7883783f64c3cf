"""The values a site is tried with: the jump and its neighbours, everything special, and random ones.

For the 16-bit types these are all 65 536 values there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jr_onnx.element_types import Array, numpy_dtype

_BITS: dict[str, Any] = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}
_NEIGHBOURS = 64
_CHANNEL_NEIGHBOURS = 8
_MOST_VALUES = 1 << 22


def probe_values(dtype: str, marks: list[float], count: int, generator: np.random.Generator) -> Array:
    """Return values (N,) to try a site with.

    Args:
        dtype: NumPy name of the site's type.
        marks: Where something happens: kappa, the cap; each comes with its nearest neighbours on both sides.
        count: How many random ones; the 16-bit types are tried with all their values instead.
        generator: Draws the random ones.
    """
    kind = numpy_dtype(dtype)
    bits = _BITS[dtype]
    if np.dtype(bits).itemsize == 2:
        every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
        return every.view(kind)
    info = np.finfo(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0]
    special += [
        sign * value for value in map(float, (info.max, info.tiny, info.smallest_subnormal)) for sign in (1.0, -1.0)
    ]
    parts = [np.array(special, dtype=kind)]
    for mark in marks:
        parts.extend(_around(mark, kind, bits))
    scale = next((mark for mark in marks if mark > 0), 1.0)
    parts.append(generator.standard_normal(count).astype(kind))
    parts.append((generator.standard_normal(count) * 2 * scale).astype(kind))
    # Random bit patterns reach every exponent, subnormals and NaNs with payloads among them.
    parts.append(generator.integers(0, np.iinfo(bits).max, count, dtype=bits, endpoint=True).view(kind))
    return np.concatenate(parts)


def channel_values(
    dtype: str, kappa: tuple[float, ...], cap: float | None, rank: int, count: int, generator: np.random.Generator
) -> Array:
    """Return values (N, C, 1, ..., 1) to try a site with that has a kappa for each of C channels.

    Every channel is given its own kappa and its nearest neighbours, and what `probe_values` gives for all, of which a
    site with many channels is given a random part.

    Args:
        dtype: NumPy name of the site's type.
        kappa: The jumps.
        cap: Upper bound, or None.
        rank: Rank of the result.
        count: How many random ones.
        generator: Draws them.
    """
    kind, bits = numpy_dtype(dtype), _BITS[dtype]
    own = [np.concatenate(_around(value, kind, bits, _CHANNEL_NEIGHBOURS)) for value in kappa]
    rows = max(len(values) for values in own)
    # A kappa of less than some steps above 0 has fewer neighbours below.
    columns = np.stack([np.resize(values, rows) for values in own], axis=1)
    shared = probe_values(dtype, [] if cap is None else [cap], count, generator)
    most = max(256, _MOST_VALUES // len(kappa))
    if shared.size > most:
        shared = generator.permutation(shared)[:most]
    every = np.repeat(shared[:, None], len(kappa), axis=1)
    return np.concatenate([columns, every]).reshape((-1, len(kappa), *(1 for _ in range(rank - 2))))


def _around(mark: float, kind: np.dtype[Any], bits: Any, steps: int = _NEIGHBOURS) -> list[Array]:
    """Return the mark, its negative and their neighbours, by counting bit patterns up and down."""
    centre = np.array(mark, dtype=kind)
    if not np.isfinite(centre):
        return []
    pattern = int(centre.view(bits))
    near = [pattern + step for step in range(-steps, steps + 1) if pattern + step >= 0]
    above = np.array(near, dtype=bits).view(kind)
    return [above, -above]
