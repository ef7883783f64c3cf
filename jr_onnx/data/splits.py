"""Which items belong to train, validation and test, decided by a hash: the same in every run and NumPy version.

Every item has a 64-bit key: its index, or a hash of its file name. The key is mixed (splitmix64) into a fraction
in [0, 1). An item's split depends on its own key alone: adding images never moves another one across the border.

    a set with a validation part of its own:   as the set says
    a set with train and test parts:           validation = the train items whose fraction is below 0.1
    a set with one part only:                  validation = fraction below 0.2, test = the rest, no train
    the embedded digits:                       test = below 0.2, validation = below 0.4, train = the rest

Validation therefore never overlaps test. Items that are byte-for-byte equal under two keys are two items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from jr_onnx.errors import DataError

Split = Literal["train", "validation", "test"]
Part = Literal["train", "validation", "test", "one"]
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


def part_of(split: Split, parts: AbstractSet[Part], name: str) -> Part:
    """Return the part of a set that a split is taken from.

    Args:
        split: What is wanted.
        parts: What the set has; `one` alone for a set without parts.
        name: Name of the set, for the error.

    Raises:
        DataError: The set has no such split.
    """
    if "one" in parts:
        return "one"
    if split in parts:
        return split
    if split == "validation":
        return "train" if "train" in parts else "test"
    raise DataError(
        f"{name} has the parts {', '.join(sorted(parts))}, no {split} part",
        hint=f"Add the {split} images, or use another split",
    )


def positions(
    split: Split, part: Part, parts: AbstractSet[Part], values: NDArray[np.float64], name: str
) -> NDArray[np.int64]:
    """Return the positions of a split within its part; see the module's docstring.

    Args:
        split: What is wanted.
        part: What `part_of` returned.
        parts: What the set has.
        values: The fractions of the items of the part, (N,).
        name: Name of the set, for the error.

    Raises:
        DataError: A set of one part has no train split.
    """
    alone = part == "one" or (part == "test" and parts == {"test"})
    if alone and split == "train":
        raise DataError(
            f"{name} has one part only, which serves as validation and test",
            hint="Use the split validation or test, or give data with a train part",
        )
    if alone:
        border = VALIDATION_OF_ONE
    elif part == "train" and "validation" not in parts:
        border = VALIDATION_OF_TRAIN
    else:
        return np.arange(len(values), dtype=np.int64)
    return np.flatnonzero((values < border) == (split == "validation")).astype(np.int64)
