"""Padding arithmetic that convolutions and poolings share: auto_pad, asymmetric pads, ceil_mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.registry import Node


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over the spatial axes.

    Attributes:
        kernel: Extent per axis.
        strides: Step per axis.
        dilations: Spacing per axis.
        pads: Begin of every axis, then end of every axis; ignored where `auto_pad` is SAME_*.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        ceil: Round the output size up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    ceil: bool = False

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int]) -> Window:
        """Read the window of a node whose kernel is known."""
        rank = len(kernel)
        auto_pad = node.attr("auto_pad", "NOTSET") or "NOTSET"
        pads = node.ints("pads") or [0] * (2 * rank)
        if auto_pad == "VALID":
            pads = [0] * (2 * rank)
        if min(pads) < 0 and auto_pad == "NOTSET":
            raise node.refuse(f"negative pads {list(pads)}")
        return cls(
            tuple(kernel),
            tuple(node.ints("strides") or [1] * rank),
            tuple(node.ints("dilations") or [1] * rank),
            tuple(pads),
            auto_pad,
            bool(node.attr("ceil_mode", 0)),
        )

    @property
    def rank(self) -> int:
        """How many spatial axes there are."""
        return len(self.kernel)

    @property
    def same(self) -> bool:
        """Whether the pads follow from the input size."""
        return self.auto_pad in ("SAME_UPPER", "SAME_LOWER")

    @property
    def symmetric(self) -> bool:
        """Whether fixed pads are equal at both ends, which torch pads by itself."""
        return not self.same and self.pads[: self.rank] == self.pads[self.rank :]

    def pads_for(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the explicit pads at the beginning and at the end of every axis (ONNX operator specification)."""
        if not self.same:
            return list(self.pads[: self.rank]), list(self.pads[self.rank :])
        begin, end = [], []
        for size, kernel, stride, dilation in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            extent = (kernel - 1) * dilation + 1
            total = max(0, (-(-size // stride) - 1) * stride + extent - size)
            small, large = total // 2, total - total // 2
            begin.append(small if self.auto_pad == "SAME_UPPER" else large)
            end.append(large if self.auto_pad == "SAME_UPPER" else small)
        return begin, end

    def overhang(self, sizes: Sequence[int], begin: Sequence[int], end: Sequence[int]) -> list[int]:
        """Return how far beyond the pads the last window of every axis reaches under ceil_mode."""
        extra = []
        for axis, size in enumerate(sizes):
            extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            stride = self.strides[axis]
            room = size + begin[axis] + end[axis] - extent
            count = (-(-room // stride) if self.ceil else room // stride) + 1
            if self.ceil and (count - 1) * stride >= size + begin[axis]:
                count -= 1  # a window may not start in the padding at the end
            extra.append(max(0, (count - 1) * stride + extent - size - begin[axis] - end[axis]))
        return extra


def pad_axes(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last axes by `begin` and `end` elements of a value."""
    if not any(begin) and not any(end):
        return x
    flat = [amount for pair in zip(reversed(begin), reversed(end), strict=True) for amount in pair]
    return F.pad(x, flat, value=value)
