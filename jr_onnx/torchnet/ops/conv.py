"""Convolutions over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.ops.windows import Window, pad_axes
from jr_onnx.torchnet.registry import Function, Node, op

Convolution = Callable[..., Tensor]
"""Takes input, weight and an optional bias."""

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def _for_kernel(node: Node, weight_input: int, build: Callable[[list[int]], Convolution]) -> Convolution:
    """Build a convolution for its kernel's extent, at every pass where only the weight at run time tells it."""
    kernel = node.ints("kernel_shape")
    weight = node.const(weight_input)
    if kernel is None and weight is not None:
        kernel = list(weight.shape[2:])
    if kernel is not None:
        if len(kernel) not in _CONV:
            raise node.refuse(f"{len(kernel)} spatial axes")
        return build(kernel)
    return lambda x, w, b=None: build(list(w.shape[2:]))(x, w, b)


def convolution(node: Node, weight_input: int = 1) -> Convolution:
    """Return the convolution as a function of input, weight and bias; shared with the fused and quantised forms."""
    return _for_kernel(node, weight_input, lambda kernel: _convolution(node, kernel))


def _convolution(node: Node, kernel: list[int]) -> Convolution:
    window = Window.of(node, kernel)
    function = _CONV[window.rank]
    common: dict[str, Any] = {
        "stride": window.strides,
        "dilation": window.dilations,
        "groups": node.attr("group", 1),
    }
    if window.symmetric:
        padding = window.pads[: window.rank]
        return lambda x, w, b=None: function(x, w, b, padding=padding, **common)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        begin, end = window.pads_for(x.shape[2:])
        return function(pad_axes(x, begin, end), w, b, **common)

    return run


@op("Conv")
def _conv(node: Node) -> Function:
    return convolution(node)


@op("ConvTranspose")
def _conv_transpose(node: Node) -> Function:
    return _for_kernel(node, 1, lambda kernel: _transposed(node, kernel))


def _transposed(node: Node, kernel: list[int]) -> Convolution:
    rank = len(kernel)
    window = Window.of(node, kernel)
    function = _TRANSPOSED[rank]
    extra = node.ints("output_padding") or [0] * rank
    groups = node.attr("group", 1)
    wanted = node.ints("output_shape")

    def crops(full: list[int], sizes: torch.Size) -> tuple[list[int], list[int]]:
        """Return how much of the full result is cut at the beginning and at the end of every axis."""
        if wanted is None and not window.same:
            return list(window.pads[:rank]), list(window.pads[rank:])
        target = list(wanted[-rank:]) if wanted is not None else [sizes[i] * window.strides[i] for i in range(rank)]
        total = [have - want for have, want in zip(full, target, strict=True)]
        # SAME_UPPER cuts the odd element at the end, everything else at the beginning (ConvTranspose specification).
        begin = [cut // 2 if window.auto_pad == "SAME_UPPER" else cut - cut // 2 for cut in total]
        return begin, [cut - first for cut, first in zip(total, begin, strict=True)]

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        sizes = x.shape[2:]
        full = [
            window.strides[i] * (sizes[i] - 1) + extra[i] + (kernel[i] - 1) * window.dilations[i] + 1
            for i in range(rank)
        ]
        begin, end = crops(full, sizes)
        result = function(x, w, None, stride=window.strides, groups=groups, dilation=window.dilations)
        # output_padding lengthens the far end by zeros; torch itself takes it only below the stride or dilation.
        result = pad_axes(result, [0] * rank, extra)
        for axis in range(rank):
            if begin[axis] or end[axis]:
                result = pad_axes_or_crop(result, axis + 2, begin[axis], end[axis])
        return result if b is None else result + b.reshape(-1, *[1] * rank)

    return run


def pad_axes_or_crop(x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    """Crop an axis by `begin` and `end` elements; a negative amount pads with zeros instead."""
    if begin > 0 or end > 0:
        x = x.narrow(axis, max(begin, 0), x.shape[axis] - max(begin, 0) - max(end, 0))
    if begin < 0 or end < 0:
        amounts = [0, 0] * (x.dim() - 1 - axis) + [max(-begin, 0), max(-end, 0)]
        x = F.pad(x, amounts)
    return x
