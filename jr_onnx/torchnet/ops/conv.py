"""Convolutions over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.ops.windows import Window, pad_axes
from jr_onnx.torchnet.registry import Function, Node, op

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def convolution(node: Node, weight_input: int = 1) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return the convolution as a function of input, weight and bias; shared with the fused and quantised forms."""
    kernel = node.attr("kernel_shape")
    weight = node.const(weight_input)
    if kernel is None and weight is not None:
        kernel = list(weight.shape[2:])
    if kernel is None:
        raise node.refuse("neither kernel_shape nor a constant weight")
    if len(kernel) not in _CONV:
        raise node.refuse(f"{len(kernel)} spatial axes")
    window = Window.of(node, kernel)
    function = _CONV[window.rank]
    common: dict[str, Any] = {
        "stride": window.strides,
        "dilation": window.dilations,
        "groups": node.attr("group", 1),
    }
    if window.symmetric:
        padding = window.pads[: window.rank]

        def run_plain(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
            return function(x, w, b, padding=padding, **common)

        return run_plain

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        begin, end = window.pads_for(x.shape[2:])
        return function(pad_axes(x, begin, end), w, b, **common)

    return run


@op("Conv")
def _conv(node: Node) -> Function:
    return convolution(node)


@op("ConvTranspose")
def _conv_transpose(node: Node) -> Function:
    kernel = node.attr("kernel_shape")
    weight = node.const(1)
    if kernel is None and weight is not None:
        kernel = list(weight.shape[2:])
    if kernel is None:
        raise node.refuse("neither kernel_shape nor a constant weight")
    rank = len(kernel)
    if rank not in _TRANSPOSED:
        raise node.refuse(f"{rank} spatial axes")
    function = _TRANSPOSED[rank]
    strides = node.attr("strides") or [1] * rank
    dilations = node.attr("dilations") or [1] * rank
    extra = node.attr("output_padding") or [0] * rank
    groups = node.attr("group", 1)
    wanted = node.attr("output_shape")
    auto_pad = node.attr("auto_pad", "NOTSET") or "NOTSET"
    pads = node.attr("pads") or [0] * (2 * rank)
    if min(pads) < 0:
        raise node.refuse(f"negative pads {list(pads)}")

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        sizes = x.shape[2:]
        full = [strides[i] * (sizes[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
        begin, end = _transposed_pads(full, sizes)
        # The uncropped result, its far end lengthened by what output_padding adds, then both ends cropped.
        # torch wants output_padding below the stride or the dilation; zeros beyond the last window are the same.
        result = function(x, w, None, stride=strides, groups=groups, dilation=dilations)
        grow = [max(0, extra[i]) for i in range(rank)]
        result = pad_axes(result, [0] * rank, grow)
        for axis in range(rank):
            if begin[axis] or end[axis]:
                result = pad_axes_or_crop(result, axis + 2, begin[axis], end[axis])
        return result if b is None else result + b.reshape(-1, *[1] * rank)

    def _transposed_pads(full: list[int], sizes: torch.Size) -> tuple[list[int], list[int]]:
        if wanted is None and auto_pad in ("NOTSET", "VALID"):
            return (list(pads[:rank]), list(pads[rank:])) if auto_pad == "NOTSET" else ([0] * rank, [0] * rank)
        target = list(wanted[-rank:]) if wanted is not None else [sizes[i] * strides[i] for i in range(rank)]
        begin, end = [], []
        for i in range(rank):
            total = full[i] - target[i]
            # "If auto_pad is SAME_UPPER the extra padding is added at the end" (ConvTranspose specification).
            half = total // 2
            begin.append(half if auto_pad == "SAME_UPPER" else total - half)
            end.append(total - begin[-1])
        return begin, end

    return run


def pad_axes_or_crop(x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    """Crop an axis by `begin` and `end` elements; a negative amount pads with zeros instead."""
    if begin > 0 or end > 0:
        x = x.narrow(axis, max(begin, 0), x.shape[axis] - max(begin, 0) - max(end, 0))
    if begin < 0 or end < 0:
        amounts = [0, 0] * (x.dim() - 1 - axis) + [max(-begin, 0), max(-end, 0)]
        x = F.pad(x, amounts)
    return x
