"""Reductions, arg-reductions, running sums and top-k."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op

Reduction = Callable[[Tensor, Sequence[int], bool], Tensor]


def _prod(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, dim=axis, keepdim=keep)
    return x


def _extreme(function: Callable[..., Tensor], *, largest: bool) -> Reduction:
    def run(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        if x.dtype == torch.bool:
            return torch.clamp(run(x.to(torch.int8), axes, keep), 0, 1).to(torch.bool)
        if any(x.shape[axis] == 0 for axis in axes):
            shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
            x = torch.full(shape, _extreme_of_none(x.dtype, largest), dtype=x.dtype, device=x.device)
        return function(x, tuple(axes), keep)

    return run


def _extreme_of_none(dtype: torch.dtype, largest: bool) -> float:
    """Return the maximum (or minimum) of no elements: the least (or greatest) value of the type."""
    if dtype.is_floating_point:
        return -torch.inf if largest else torch.inf
    limits = torch.iinfo(dtype)
    return limits.min if largest else limits.max


def _sum(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.sum(x, dim=tuple(axes), keepdim=keep, dtype=x.dtype)


def _norm2(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return torch.sqrt(_sum(x * x, axes, keep).to(torch.float64)).to(x.dtype)
    norm: Tensor = torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=keep)
    return norm


def _logsumexp(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, dim=tuple(axes), keepdim=keep)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes, keep: _sum(torch.abs(x), axes, keep),
    "ReduceL2": _norm2,
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _logsumexp,
    "ReduceMax": _extreme(torch.amax, largest=True),
    "ReduceMean": lambda x, axes, keep: torch.mean(x, dim=tuple(axes), keepdim=keep),
    "ReduceMin": _extreme(torch.amin, largest=False),
    "ReduceProd": _prod,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}
_WITHOUT_AXES: dict[str, Callable[[Tensor], Tensor]] = {
    # What a reduction over no axis (noop_with_empty_axes) still does to each element.
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceLogSum": torch.log,
    "ReduceSumSquare": torch.square,
}


def _unchanged(x: Tensor) -> Tensor:
    return x


@op(*_REDUCTIONS, host=(1,))
def _reduce(node: Node) -> Function:
    reduction = _REDUCTIONS[node.op_type]
    element = _WITHOUT_AXES.get(node.op_type, _unchanged)
    keep = bool(node.attr("keepdims", 1))
    noop = bool(node.attr("noop_with_empty_axes", 0))
    fixed = node.ints("axes")
    read = node.list_input(1)

    def run(x: Tensor, axes_input: Tensor | None = None) -> Tensor:
        axes: Sequence[int] | None = fixed if fixed is not None else read(axes_input)
        if not axes:
            if noop:
                return element(x)
            axes = range(x.dim())
        places = sorted(axis % x.dim() for axis in axes) if x.dim() else []
        if not places:
            return reduction(x.reshape(1), [0], False)
        return reduction(x, places, keep)

    return run


@op("ArgMax", "ArgMin")
def _arg_reduce(node: Node) -> Function:
    axis, keep = node.attr("axis", 0), bool(node.attr("keepdims", 1))
    last = bool(node.attr("select_last_index", 0))
    extreme: Callable[..., Tensor] = torch.amax if node.op_type == "ArgMax" else torch.amin

    def run(x: Tensor) -> Tensor:
        if not last:
            return _first(x)
        return torch.sub(x.shape[axis] - 1, _first(torch.flip(x, (axis,))))

    def _first(x: Tensor) -> Tensor:
        # torch promises no particular index among equals; ONNX asks for the smallest that holds the extreme.
        size = x.shape[axis]
        shape = [1] * x.dim()
        shape[axis] = size
        places = torch.arange(size, device=x.device).reshape(shape)
        hits: Tensor = torch.where(x == extreme(x, axis, True), places, size)
        result: Tensor = torch.amin(hits, axis, keep)
        return result

    return run


@op("CumSum", host=(1,))
def _cumsum(node: Node) -> Function:
    exclusive, backward = node.attr("exclusive", 0), node.attr("reverse", 0)
    read = node.list_input(1)

    def run(x: Tensor, axis_input: Tensor) -> Tensor:
        axis = (read(axis_input) or [0])[0]
        values = torch.flip(x, (axis,)) if backward else x
        total = torch.cumsum(values, dim=axis, dtype=x.dtype)
        if exclusive:
            total = total - values
        return total.flip(axis) if backward else total

    return run


@op("TopK", host=(1,))
def _topk(node: Node) -> Function:
    axis = node.attr("axis", -1)
    largest, ordered = bool(node.attr("largest", 1)), bool(node.attr("sorted", 1))
    fixed = node.integer("k")
    read = node.list_input(1)

    def run(x: Tensor, k_input: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = fixed if fixed is not None else (read(k_input) or [0])[0]
        if not ordered:
            values, places = torch.topk(x, count, dim=axis, largest=largest, sorted=False)
            return values, places
        # A stable sort: among equal values the smaller index comes first, as ONNX asks.
        values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count), places.narrow(axis, 0, count)

    return run
