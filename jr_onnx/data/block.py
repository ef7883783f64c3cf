"""What a reader of one kind of data gives: the labels of a part, and a way to read some of its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.splits import Part
from jr_onnx.element_types import Array


@dataclass(frozen=True)
class Block:
    """One part of a data set, its images not read yet.

    Attributes:
        labels: (N,) int64 of all items, checked.
        read: From positions (M,) to pixels (M, C, H, W), bytes or float32; reads only those.
        scale: What the brightest pixel is.
        class_names: One name per class.
        fractions: (N,) in [0, 1), which decide the split of each item.
        range: What 0 and 1 stand for in the file, where the model is to get the file's own values.
        notes: What the reader of results should know of how the data was understood.
        labelled: Whether the data has labels; where it has none, all are 0.
    """

    labels: NDArray[np.int64]
    read: Callable[[NDArray[np.int64]], Array]
    scale: float
    class_names: tuple[str, ...]
    fractions: NDArray[np.float64]
    range: tuple[float, float] = (0.0, 1.0)
    notes: tuple[str, ...] = ()
    labelled: bool = True


class Source(Protocol):
    """A data set on disk."""

    @property
    def name(self) -> str:
        """Short name for reports and errors."""

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that the set has."""

    def block(self, part: Part) -> Block:
        """Open one part."""
