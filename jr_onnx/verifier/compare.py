"""Compare what two evaluations gave: value for value, or by the largest difference.

Value for value: same shape and type, equal numbers, NaN where the other has NaN. -0.0 equals +0.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jr_onnx.element_types import Array

Value = object
"""What an evaluator gives for an output: an array, or the list or dictionary that stands for a sequence or map."""


@dataclass(frozen=True)
class Difference:
    """Where two arrays are farthest apart.

    Attributes:
        size: The largest absolute difference; infinite where only one is NaN or infinite, or the shapes differ.
        index: Where, as a tuple of positions; () for scalars and for arrays that cannot be compared.
        one: The value there, as text.
        other: The other value there.
    """

    size: float
    index: tuple[int, ...]
    one: str
    other: str

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return self.size > 0


NO_DIFFERENCE = Difference(0.0, (), "", "")


def difference(one: Value, other: Value) -> Difference:
    """Return where two values of one output are farthest apart.

    Args:
        one: An array, or the list or dictionary that ONNX Runtime gives for sequences and maps.
        other: The other evaluation's.
    """
    worst = NO_DIFFERENCE
    first, second = list(_arrays(one)), list(_arrays(other))
    if len(first) != len(second):
        return Difference(np.inf, (), f"{len(first)} tensors", f"{len(second)} tensors")
    for left, right in zip(first, second, strict=True):
        found = _difference_of_arrays(left, right)
        if found.size > worst.size:
            worst = found
    return worst


def largest_difference(one: Value, other: Value) -> float:
    """Return the largest absolute difference; 0 means equal value for value."""
    return difference(one, other).size


def finite_difference(one: Value, other: Value) -> float:
    """Return the largest absolute difference where both are finite; what a tolerance is made of.

    An infinity or NaN on one side is a difference to be reported (`difference`), never a measure of rounding: a bound
    taken from it would let everything pass.
    """
    largest = 0.0
    for left, right in zip(_arrays(one), _arrays(other), strict=False):
        if left.shape != right.shape or not (_is_number(left) and _is_number(right)):
            continue
        wide, others = _wide(left), _wide(right)
        both = np.isfinite(wide) & np.isfinite(others)
        largest = max(largest, float(np.abs(wide[both] - others[both]).max(initial=0.0)))
    return largest


def magnitude(value: Value) -> float:
    """Return the largest finite absolute value; 0 for empty and non-numeric values."""
    largest = 0.0
    for array in _arrays(value):
        if array.size == 0 or not _is_number(array):
            continue
        wide = np.abs(_wide(array))
        finite = wide[np.isfinite(wide)]
        largest = max(largest, float(finite.max(initial=0.0)))
    return largest


def dtype_name(value: Value) -> str:
    """Return the NumPy name of the element type; "" for values without one."""
    return next((str(array.dtype) for array in _arrays(value)), "")


def is_floating(dtype: np.dtype[np.generic]) -> bool:
    """Tell whether an element type is floating, bfloat16 included (NumPy calls that a void type)."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _arrays(value: Value) -> Iterator[Array]:
    if isinstance(value, dict):
        for key in value:
            yield np.asarray(key)
            yield from _arrays(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _arrays(item)
    else:
        yield np.asarray(value)


def _is_number(array: Array) -> bool:
    return array.dtype.kind in "biufc" or array.dtype.name == "bfloat16"


def _wide(array: Array) -> npt.NDArray[np.inexact]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _difference_of_arrays(one: Array, other: Array) -> Difference:
    if one.shape != other.shape or one.dtype != other.dtype:
        return Difference(np.inf, (), f"{one.dtype}{list(one.shape)}", f"{other.dtype}{list(other.shape)}")
    if one.size == 0 or one.tobytes() == other.tobytes():
        return NO_DIFFERENCE
    if not _is_number(one):
        unequal = np.argwhere(one != other)
        if not len(unequal):
            return NO_DIFFERENCE
        place = tuple(int(position) for position in unequal[0])
        return Difference(np.inf, place, str(one[place]), str(other[place]))
    left, right = _wide(one), _wide(other)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(left - right)
    both_nan = np.isnan(left) & np.isnan(right)
    gap = np.where((left == right) | both_nan, 0.0, np.where(np.isnan(gap), np.inf, gap))
    flat = int(gap.argmax())
    place = tuple(int(position) for position in np.unravel_index(flat, gap.shape))
    size = float(gap[place])
    return Difference(size, place, str(one[place]), str(other[place])) if size else NO_DIFFERENCE
