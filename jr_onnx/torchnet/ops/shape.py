"""Reshaping and rearranging: what moves elements without changing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op


@op("Reshape", host=(1,))
def _reshape(node: Node) -> Function:
    allow_zero = bool(node.attr("allowzero", 0))
    read = node.list_input(1)
    fixed = node.ints("shape")
    follows_batch = node.lead is not None and node.const(0) is None

    def run(x: Tensor, shape_input: Tensor | None = None) -> Tensor:
        wanted = fixed if fixed is not None else read(shape_input) or []
        if follows_batch and wanted and wanted[0] == node.lead:
            wanted = _leading_batch(x, wanted)
        if allow_zero:
            return x.reshape(wanted)
        return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)])

    return run


def _leading_batch(x: Tensor, wanted: Sequence[int]) -> list[int]:
    """Replace a leading size that is the exported batch by the one that the elements call for."""
    rest = 1
    for axis, size in enumerate(wanted[1:], start=1):
        if size == -1:
            return [x.shape[0], *wanted[1:]]
        rest *= x.shape[axis] if size == 0 else size
    return [x.numel() // rest if rest else wanted[0], *wanted[1:]]


@op("Flatten")
def _flatten(node: Node) -> Function:
    axis = node.attr("axis", 1)

    def run(x: Tensor) -> Tensor:
        split = axis + x.dim() if axis < 0 else axis
        rows = 1
        for size in x.shape[:split]:
            rows *= size
        return x.reshape(rows, x.numel() // rows if rows else 0)

    return run


@op("Squeeze", host=(1,))
def _squeeze(node: Node) -> Function:
    fixed = node.ints("axes")
    read = node.list_input(1)

    def run(x: Tensor, axes_input: Tensor | None = None) -> Tensor:
        axes = fixed if fixed is not None else read(axes_input)
        return x.squeeze() if axes is None else x.squeeze(tuple(axes))

    return run


@op("Unsqueeze", host=(1,))
def _unsqueeze(node: Node) -> Function:
    fixed = node.ints("axes")
    read = node.list_input(1)

    def run(x: Tensor, axes_input: Tensor | None = None) -> Tensor:
        axes = (fixed if fixed is not None else read(axes_input)) or []
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@op("Transpose")
def _transpose(node: Node) -> Function:
    order = node.ints("perm")
    return lambda x: x.permute(order if order else tuple(reversed(range(x.dim()))))


@op("Concat")
def _concat(node: Node) -> Function:
    axis = node.attr("axis", 1)
    return lambda *items: torch.cat(items, dim=axis)


@op("Split", host=(1,))
def _split(node: Node) -> Function:
    axis = node.attr("axis", 0)
    fixed = node.ints("split")
    read = node.list_input(1)
    parts = node.outputs

    def run(x: Tensor, split_input: Tensor | None = None) -> tuple[Tensor, ...]:
        sizes = fixed if fixed is not None else read(split_input)
        if sizes is None:
            chunk = -(-x.shape[axis] // parts)
            sizes = [max(0, min(chunk, x.shape[axis] - chunk * index)) for index in range(parts)]
        return torch.split(x, sizes, dim=axis)

    return run


@op("Expand", host=(1,))
def _expand(node: Node) -> Function:
    read = node.list_input(1)
    return lambda x, shape: x.expand(_broadcast(x.shape, read(shape) or ()))


def _broadcast(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Return the common shape of two that broadcast; a size of 1 yields to the other."""
    rank = max(len(one), len(other))
    left, right = [1] * (rank - len(one)) + list(one), [1] * (rank - len(other)) + list(other)
    return [b if a == 1 else a for a, b in zip(left, right, strict=True)]


@op("Tile", host=(1,))
def _tile(node: Node) -> Function:
    read = node.list_input(1)
    return lambda x, repeats: x.repeat(read(repeats) or ()) if x.dim() else x


@op("Shape")
def _shape(node: Node) -> Function:
    start, end = node.attr("start", 0), node.integer("end")
    return lambda x: torch.tensor(tuple(x.shape)[start:end], dtype=torch.int64)


@op("Size")
def _size(node: Node) -> Function:
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64)


@op("Pad", last=10)
def _pad_attributes(node: Node) -> Function:
    pads, value, mode = node.ints("pads") or [], node.attr("value", 0.0), node.attr("mode", "constant")
    return lambda x: pad(x, pads, range(x.dim()), mode, value)


@op("Pad", first=11, host=(1, 2, 3))
def _pad(node: Node) -> Function:
    mode = node.attr("mode", "constant")
    read_pads, read_value, read_axes = node.list_input(1), node.number_list_input(2), node.list_input(3)

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        fill = (read_value(value) or [0])[0]
        places = read_axes(axes)
        return pad(x, read_pads(pads) or [], range(x.dim()) if places is None else places, mode, fill)

    return run


def pad(x: Tensor, pads: Sequence[int], axes: Sequence[int], mode: str, value: float) -> Tensor:
    """Pad axes by `pads` (all beginnings, then all ends); a negative amount crops."""
    for index, axis in enumerate(axes):
        begin, end = pads[index], pads[index + len(axes)]
        place = axis % x.dim()
        if begin < 0 or end < 0:
            x = x.narrow(place, max(-begin, 0), x.shape[place] - max(-begin, 0) - max(-end, 0))
            begin, end = max(begin, 0), max(end, 0)
        if begin or end:
            x = _pad_axis(x, place, begin, end, mode, value)
    return x


def _pad_axis(x: Tensor, axis: int, begin: int, end: int, mode: str, value: Any) -> Tensor:
    size = x.shape[axis]
    if mode == "constant":
        return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [begin, end], value=value)
    places = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:  # reflect: a triangle wave of period 2 (size - 1)
        period = max(1, 2 * (size - 1))
        places = places % period
        places = torch.where(places >= size, period - places, places)
    return x.index_select(axis, places)


@op("DepthToSpace")
def _depth_to_space(node: Node) -> Function:
    block = node.required("blocksize")
    columns_first = node.attr("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if columns_first:
            parts = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return run


@op("SpaceToDepth")
def _space_to_depth(node: Node) -> Function:
    block = node.required("blocksize")
    columns_first = node.attr("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block)
        order = (0, 1, 3, 5, 2, 4) if columns_first else (0, 3, 5, 1, 2, 4)
        return parts.permute(order).reshape(n, c * block**2, h // block, w // block)

    return run


@op("Trilu", host=(1,))
def _trilu(node: Node) -> Function:
    function: Callable[..., Tensor] = torch.triu if node.attr("upper", 1) else torch.tril
    read = node.list_input(1)
    return lambda x, k=None: function(x, (read(k) or [0])[0])
