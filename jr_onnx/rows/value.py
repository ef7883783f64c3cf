"""What the proof knows of one value of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jr_onnx.element_types import Array
from jr_onnx.rows.size import BATCH, ONE, Size

Dims = tuple[Size, ...]
Content = npt.NDArray[np.object_]
CHANGING: Final = object()
"""An element that depends on the number of rows in a way that is not followed."""

LARGEST_CONTENT: Final = 256
"""Elements of a value that are kept: shapes, axes and the like are far smaller."""


class NotProvedError(Exception):
    """The rows cannot be followed through a node; the text says why, in words that follow its name."""


@dataclass(frozen=True, slots=True)
class Block:
    """How the rows are arranged along an axis: entry `(l * batch + n) * each + e` is one of row n.

    `(N, T)` laid out as `(N * T,)` has T entries for each row, and as `(T * N,)` after a transpose T times one.

    Attributes:
        lead: How often all rows come.
        each: Entries of a row, one behind the other.
    """

    lead: Size = ONE
    each: Size = ONE

    @property
    def size(self) -> Size:
        """Entries along the axis."""
        return self.lead * BATCH * self.each


ALONE: Final = Block()
"""One entry for each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value in a run of any number of rows.

    Three kinds:

    - `axis` is a number: along that axis lie the rows, as `block` describes, and the entries of a row are those
      that the row has in a run of its own. No other size changes with the batch.
    - `axis` is None and `sized` is false: the value is the same in every run, whatever the rows and their number.
    - `axis` is None and `sized` is true: numbers that depend on how many rows there are, not on what is in them.

    Attributes:
        axis: The axis of the batch.
        block: How the rows are arranged along it.
        dims: Sizes; None where even the rank is unknown, never with an axis.
        content: Elements of a small value: a `Size` for an integer, a float, a bool or a string, None for one that is
            not known, `CHANGING`.
        sized: See above.
    """

    axis: int | None = None
    block: Block = ALONE
    dims: Dims | None = None
    content: Content | None = None
    sized: bool = False

    @property
    def elements(self) -> list[object]:
        """The elements of `content` in row-major order; empty where there is none."""
        found: list[object] = [] if self.content is None else self.content.ravel().tolist()
        return found

    @property
    def rank(self) -> int | None:
        """Number of axes."""
        return None if self.dims is None else len(self.dims)

    @property
    def from_end(self) -> int:
        """The axis of the batch counted from the end, which is how broadcasting counts."""
        if self.axis is None or self.dims is None:
            raise TypeError("a value without rows has no axis of the batch")
        return self.axis - len(self.dims)


@dataclass(frozen=True, slots=True)
class Unproved:
    """A value whose rows are not proved apart: the first node on its way where the proof ended, and why."""

    node: str
    reason: str


def fixed(dims: Dims | None = None) -> Value:
    """Return a value that is the same in every run."""
    return Value(dims=dims)


def rows(axis: int, block: Block, dims: Sequence[Size]) -> Value:
    """Return a value with rows along an axis, whose size is set from the block."""
    sizes = list(dims)
    sizes[axis] = block.size
    return Value(axis=axis, block=block, dims=tuple(sizes))


def like(value: Value, dims: Dims | None = None) -> Value:
    """Return a value with the rows of another, of the same sizes unless others are given; its elements are new."""
    return Value(axis=value.axis, block=value.block, dims=value.dims if dims is None else dims)


def known(content: npt.ArrayLike) -> Value:
    """Return a value whose elements are given: `Size`s, or what a constant holds."""
    elements = np.asarray(content, dtype=object)
    dims = tuple(Size(size) for size in elements.shape)
    return Value(dims=dims, content=elements, sized=any(changes(element) for element in elements.flat))


def changes(element: object) -> bool:
    """Whether an element of a value depends on the number of rows."""
    return element is CHANGING or (isinstance(element, Size) and element.has_batch)


def constant(array: Array) -> Value:
    """Return the value of a constant, with its elements where it is small."""
    dims = tuple(Size(size) for size in array.shape)
    if array.size > LARGEST_CONTENT:
        return Value(dims=dims)
    if array.dtype.kind in "iu" and array.dtype not in (np.int32, np.int64):
        return Value(dims=dims)  # arithmetic on these wraps around early; no exporter computes shapes in them
    elements = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        element: Any = array[index].item() if hasattr(array[index], "item") else array[index]
        is_integer = isinstance(element, int) and not isinstance(element, bool)
        elements[index] = Size(element) if is_integer else element
    return Value(dims=dims, content=elements)


def numbers(value: Value | None) -> list[Size | None] | None:
    """Return the elements of a known vector or scalar of integers, None for each that is not known.

    Raises:
        NotProvedError: One of them depends on the batch in a way that is not followed.
    """
    if value is None or value.content is None:
        return None
    if any(element is CHANGING for element in value.elements):
        raise NotProvedError("a size is computed from the number of rows in a way that is not followed")
    return [element if isinstance(element, Size) else None for element in value.elements]


def integers(value: Value | None) -> list[int] | None:
    """Return the elements of a known vector or scalar of plain integers."""
    found = numbers(value)
    if found is None:
        return None
    result = [element.number for element in found if element is not None]
    plain = [number for number in result if number is not None]
    return plain if len(plain) == len(found) else None
