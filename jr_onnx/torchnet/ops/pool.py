"""Poolings: max, average and Lp, over one, two or three spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.ops.windows import Window, pad_axes
from jr_onnx.torchnet.registry import Function, Node, op

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _window(node: Node) -> Window:
    kernel = node.ints("kernel_shape")
    if kernel is None or len(kernel) not in _MAX:
        raise node.refuse(f"kernel_shape {kernel}")
    return Window.of(node, kernel)


@op("MaxPool")
def _max_pool(node: Node) -> Function:
    window = _window(node)
    function = _MAX[window.rank]
    if node.outputs > 1:
        return _max_pool_with_indices(node, window)
    inside = all(2 * pad <= kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True))
    if window.symmetric and not window.ceil and inside:
        padding = window.pads[: window.rank]
        return lambda x: _as_float(x, lambda y: function(y, window.kernel, window.strides, padding, window.dilations))

    def run(x: Tensor) -> Tensor:
        padded, _ = _pad_for(x, window, -math.inf)
        return function(padded, window.kernel, window.strides, 0, window.dilations)

    return lambda x: _as_float(x, run)


def _as_float(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Pool integers as floats, which torch requires; 8-bit values survive that exactly."""
    return function(x) if x.is_floating_point() else function(x.to(torch.float32)).to(x.dtype)


def _max_pool_with_indices(node: Node, window: Window) -> Function:
    column_major = node.attr("storage_order", 0)
    if column_major and window.rank != 2:
        raise node.refuse("storage_order 1 with other than two spatial axes")
    function = _MAX[window.rank]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        padded, begin = _pad_for(x, window, -math.inf)
        values, flat = function(padded, window.kernel, window.strides, 0, window.dilations, return_indices=True)
        places: list[Tensor] = []
        rest = flat
        for extent in reversed(padded.shape[2:]):
            places.insert(0, rest % extent)
            rest = rest // extent
        position = torch.zeros_like(flat)
        places = [place - start for place, start in zip(places, begin, strict=True)]
        order = list(range(window.rank))
        for axis in reversed(order) if column_major else order:
            position = position * x.shape[2 + axis] + places[axis]
        planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[0], x.shape[1])
        offset = planes.reshape(*planes.shape, *[1] * window.rank) * math.prod(x.shape[2:])
        return values, position + offset

    return run


def _pad_for(x: Tensor, window: Window, value: float) -> tuple[Tensor, list[int]]:
    """Pad for every window of the output, ceil_mode's overhang included; return the pads at the beginning too."""
    sizes = x.shape[2:]
    begin, end = window.pads_for(sizes)
    over = window.overhang(sizes, begin, end)
    return pad_axes(x, begin, [a + b for a, b in zip(end, over, strict=True)], value), begin


@op("AveragePool")
def _average_pool(node: Node) -> Function:
    window = _window(node)
    include = bool(node.attr("count_include_pad", 0))
    undilated = all(step == 1 for step in window.dilations)
    function = _AVERAGE[window.rank]
    plain = undilated and window.symmetric and not window.ceil
    if plain and all(2 * pad <= kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        padding = window.pads[: window.rank]
        return lambda x: function(x, window.kernel, window.strides, padding, False, include)

    def run(x: Tensor) -> Tensor:
        sizes = x.shape[2:]
        begin, end = window.pads_for(sizes)
        over = window.overhang(sizes, begin, end)
        total = _window_sums(pad_axes(x, begin, [a + b for a, b in zip(end, over, strict=True)]), window)
        # The divisor: how many real elements (with count_include_pad also explicit padding, never the overhang
        # of ceil_mode) lie under each window.
        ones = torch.ones((1, 1, *sizes), dtype=x.dtype, device=x.device)
        ones = pad_axes(ones, begin, end, 1.0 if include else 0.0)
        return total / _window_sums(pad_axes(ones, [0] * window.rank, over), window)

    return run


def _window_sums(padded: Tensor, window: Window) -> Tensor:
    """Return the sum under every window of an already padded (N, C, ...) tensor."""
    if all(step == 1 for step in window.dilations):
        size = math.prod(window.kernel)
        return _AVERAGE[window.rank](padded, window.kernel, window.strides) * size
    planes = padded.reshape(-1, 1, *padded.shape[2:])
    ones = torch.ones((1, 1, *window.kernel), dtype=padded.dtype, device=padded.device)
    sums = _CONV[window.rank](planes, ones, stride=window.strides, dilation=window.dilations)
    return sums.reshape(*padded.shape[:2], *sums.shape[2:])


@op("LpPool")
def _lp_pool(node: Node) -> Function:
    window = _window(node)
    power = node.attr("p", 2)

    def run(x: Tensor) -> Tensor:
        padded, _ = _pad_for(x, window, 0.0)
        return _root(_window_sums(_powered(padded, power), window), power)

    return run


def _powered(x: Tensor, power: int) -> Tensor:
    return torch.square(x) if power == 2 else torch.pow(torch.abs(x), power)


def _root(x: Tensor, power: int) -> Tensor:
    return torch.sqrt(x) if power == 2 else torch.pow(x, 1.0 / power)


def _spatial(x: Tensor) -> Sequence[int]:
    return range(2, x.dim())


@op("GlobalAveragePool")
def _global_average(node: Node) -> Function:
    return lambda x: torch.mean(x, dim=tuple(_spatial(x)), keepdim=True)


@op("GlobalMaxPool")
def _global_max(node: Node) -> Function:
    return lambda x: torch.amax(x, dim=tuple(_spatial(x)), keepdim=True)


@op("GlobalLpPool")
def _global_lp(node: Node) -> Function:
    power = node.attr("p", 2)
    return lambda x: _root(torch.sum(_powered(x, power), dim=tuple(_spatial(x)), keepdim=True), power)
