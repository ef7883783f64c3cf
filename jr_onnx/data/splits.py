"""Which items belong to train, validation and test, decided by a hash: the same in every run and NumPy version.

Every item has a 64-bit key: its index, or a hash of its file name. The key is mixed (splitmix64) into a fraction
in [0, 1). An item's split depends on its own key alone: adding images never moves another one across the border.

    a set with train and test parts:   validation = the train items whose fraction is below 0.1
    a set with one part only:          validation = fraction below 0.2, test = the rest, no train
    the embedded digits:               test = below 0.2, validation = below 0.4, train = the rest

Validation therefore never overlaps test. Items that are byte-for-byte equal under two keys are two items.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from jr_onnx.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
VALIDATION_OF_TRAIN: Final = 0.1
VALIDATION_OF_ONE: Final = 0.2


def check_split(split: str) -> Split:
    """Return `split` if it is one of the three names.

    Raises:
        DataError: It is another word.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise DataError(f"found the split {split!r}, expected one of {', '.join(SPLITS)}")


def fractions(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a fraction in [0, 1) for every key (N,), uniform and independent of the other keys."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        mixed = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    # 53 bits, the width of a double's significand, so that the fraction is exact and below 1.
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def index_fractions(count: int) -> NDArray[np.float64]:
    """Return the fractions of the items 0 .. count-1."""
    return fractions(np.arange(count, dtype=np.uint64))


def name_fractions(names: list[str]) -> NDArray[np.float64]:
    """Return the fractions of items that are known by a name, such as a path inside a folder."""
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names]
    return fractions(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))


def of_train(values: NDArray[np.float64], split: Literal["train", "validation"]) -> NDArray[np.int64]:
    """Return the positions of `split` within the train part of a set that has a test part of its own."""
    inside = values < VALIDATION_OF_TRAIN
    return np.flatnonzero(inside if split == "validation" else ~inside).astype(np.int64)


def of_one(values: NDArray[np.float64], split: Split, name: str) -> NDArray[np.int64]:
    """Return the positions of `split` within a set that has one part only.

    Raises:
        DataError: Such a set has no train split.
    """
    if split == "train":
        raise DataError(
            f"{name} has one part only, which serves as validation and test",
            hint="Use the split validation or test, or give data with a train part",
        )
    inside = values < VALIDATION_OF_ONE
    return np.flatnonzero(inside if split == "validation" else ~inside).astype(np.int64)
