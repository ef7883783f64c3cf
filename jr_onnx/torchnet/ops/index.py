"""Picking elements: slices, gathers, scatters, one-hot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op


@op("Slice", last=9)
def _slice_attributes(node: Node) -> Function:
    starts, ends, axes = node.ints("starts") or [], node.ints("ends") or [], node.ints("axes")
    return lambda x: slice_axes(x, starts, ends, axes or range(len(starts)), [1] * len(starts))


@op("Slice", first=10, host=(1, 2, 3, 4))
def _slice(node: Node) -> Function:
    readers = [node.list_input(index) for index in range(5)]

    def run(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        first, last = readers[1](starts) or [], readers[2](ends) or []
        places, strides = readers[3](axes), readers[4](steps)
        return slice_axes(
            x,
            first,
            last,
            range(len(first)) if places is None else places,
            [1] * len(first) if strides is None else strides,
        )

    return run


def slice_axes(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """Slice as Python does, negative steps included (which torch's indexing lacks)."""
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            first, last, stride = slice(start, end, step).indices(size)
            x = x.narrow(axis, min(first, size), max(0, last - first))
            if stride > 1:
                x = x[(slice(None),) * (axis % x.dim()) + (slice(None, None, stride),)]
        else:
            first = max(-1, min(start + size if start < 0 else start, size - 1))
            last = max(-1, min(end + size if end < 0 else end, size - 1))
            last = min(first, last)  # nothing is left where the end lies at or beyond the start
            x = x.index_select(axis, torch.arange(first, last, step, dtype=torch.int64, device=x.device))
    return x


@op("Gather")
def _gather(node: Node) -> Function:
    axis = node.attr("axis", 0)
    known = node.const(1)
    if known is not None and known.dim() == 0:
        place = int(known.item())
        return lambda x, _: x.select(axis, place)

    def run(x: Tensor, places: Tensor) -> Tensor:
        size = x.shape[axis]
        flat = places.reshape(-1).to(torch.int64)
        flat = torch.where(flat < 0, flat + size, flat)
        at = axis % x.dim()
        picked = x.index_select(at, flat)
        return picked.reshape(*x.shape[:at], *places.shape, *x.shape[at + 1 :])

    return run


@op("GatherElements")
def _gather_elements(node: Node) -> Function:
    axis = node.attr("axis", 0)
    return lambda x, places: torch.gather(x, axis, _wrapped(places, x.shape[axis]))


def _wrapped(places: Tensor, size: int) -> Tensor:
    places = places.to(torch.int64)
    return torch.where(places < 0, places + size, places)


@op("GatherND")
def _gather_nd(node: Node) -> Function:
    batch = node.attr("batch_dims", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        places = places.to(torch.int64)
        depth = places.shape[-1]
        grids = [
            torch.arange(size, device=x.device).reshape([size if at == axis else 1 for at in range(places.dim() - 1)])
            for axis, size in enumerate(x.shape[:batch])
        ]
        parts = [_wrapped(places[..., at], x.shape[batch + at]) for at in range(depth)]
        return x[tuple(grids + parts)]

    return run


@op("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> Function:
    axis, reduction = node.attr("axis", 0), node.attr("reduction", "none")
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}

    def run(x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
        index = _wrapped(places, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, names[reduction])

    return run


@op("ScatterND")
def _scatter_nd(node: Node) -> Function:
    reduction = node.attr("reduction", "none")
    if reduction not in ("none", "add"):
        raise node.refuse(f"reduction {reduction!r}")

    def run(x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
        depth = places.shape[-1]
        parts = tuple(_wrapped(places[..., at], x.shape[at]) for at in range(depth))
        return x.index_put(parts, updates, accumulate=reduction == "add")

    return run


@op("OneHot", host=(1,))
def _one_hot(node: Node) -> Function:
    axis = node.attr("axis", -1)
    read = node.list_input(1)

    def run(places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int((read(depth) or [0])[0])
        index = places.to(torch.int64)
        index = torch.where(index < 0, index + count, index)
        hit = index.unsqueeze(-1) == torch.arange(count, device=places.device)
        hit = hit.movedim(-1, axis)
        return torch.where(hit, values[1], values[0])

    return run


@op("NonZero")
def _non_zero(node: Node) -> Function:
    return lambda x: torch.nonzero(x).t()


@op("Compress", host=(1,))
def _compress(node: Node) -> Function:
    axis = node.integer("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        places = torch.nonzero(condition.reshape(-1)).reshape(-1).to(x.device)
        return x.reshape(-1).index_select(0, places) if axis is None else x.index_select(axis, places)

    return run
