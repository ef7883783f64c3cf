"""Normalisation, softmax and reductions: rows stay apart where the batch is not among the axes they run over."""

from __future__ import annotations

from collections.abc import Collection

from jr_onnx.rows.contents import axes_of
from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import MICROSOFT, rule
from jr_onnx.rows.rules.elementwise import broadcast
from jr_onnx.rows.rules.spatial import images
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import NotProvedError, Value, fixed, like, rows

_OVER_BATCH = "it works over the axis of the batch"


def _refuse_over(value: Value, axes: Collection[int]) -> None:
    if value.axis in axes:
        raise NotProvedError(_OVER_BATCH)


@rule("BatchNormalization")
def batch_normalisation(node: Node) -> Answer:
    """Scale channels by constants; in training mode by the batch's own mean and variance."""
    node.only(0)
    training = node.attr("training_mode", 0) or node.outputs > 1 or (node.version < 7 and not node.attr("is_test", 0))
    if training:
        raise NotProvedError("it is in training mode, where it normalises over the batch")
    if not node.attr("spatial", 1):
        raise NotProvedError("it has parameters of its own for each place (spatial=0)")
    value = node.value(0)
    if value.axis == 1:
        raise NotProvedError("the rows lie along its channels")
    return like(value)


@rule("GroupNormalization", "InstanceNormalization", "LRN")
@rule("GroupNorm", domain=MICROSOFT)
def image_normalisation(node: Node) -> Answer:
    """Normalise each image by itself."""
    node.only(0)
    return like(images(node))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
@rule("LayerNormalization", "SimplifiedLayerNormalization", domain=MICROSOFT)
def layer_normalisation(node: Node) -> Answer:
    """Normalise over the last axes, from `axis` on; further outputs keep these with one entry each."""
    node.only(0)
    value = node.value(0)
    dims = node.same_rank(value)
    first = node.spot(int(node.attr("axis", -1)), len(dims))
    _refuse_over(value, range(first, len(dims)))
    result = broadcast(node.given(), node.fresh)
    if result.rank != len(dims):
        raise NotProvedError("its scale has more axes than its input")
    small = like(value, (*dims[:first], *(ONE for _ in dims[first:])))
    return [like(value), *(small for _ in range(node.outputs - 1))]


@rule("MeanVarianceNormalization")
def mean_variance_normalisation(node: Node) -> Answer:
    """Normalise over some axes; without them, over batch and places."""
    value = node.value(0)
    rank = len(node.same_rank(value))
    _refuse_over(value, [node.spot(int(axis), rank) for axis in node.attr("axes", (0, 2, 3))])
    return like(value)


@rule("Hardmax", "LogSoftmax", "Softmax")
def softmax(node: Node) -> Answer:
    """Normalise along one axis; up to opset 12 along all axes from that one on, taken together."""
    value = node.value(0)
    rank = len(node.same_rank(value))
    if node.version >= 13:
        _refuse_over(value, [node.spot(int(node.attr("axis", -1)), rank)])
    else:
        axis = int(node.attr("axis", 1))
        _refuse_over(value, range(axis if axis >= 0 else axis + rank, rank))
    return like(value)


@rule("CumProd", "CumSum")
def running(node: Node) -> Answer:
    """Sum along one axis, entry after entry."""
    node.only(0)
    value, axes = node.value(0), axes_of(node, 1)
    if value.axis is not None and (axes is None or len(axes) != 1):
        raise NotProvedError("the axis along which it works is not known")
    if axes is not None and value.dims is not None:
        _refuse_over(value, [node.spot(axes[0], len(value.dims))])
    return like(value)


@rule("LpNormalization")
def lp_normalisation(node: Node) -> Answer:
    """Divide by the norm along one axis."""
    value = node.value(0)
    _refuse_over(value, [node.spot(int(node.attr("axis", -1)), len(node.same_rank(value)))])
    return like(value)


@rule("ArgMax", "ArgMin")
def arg(node: Node) -> Answer:
    """Find the place of the largest or smallest entry along one axis."""
    value = node.value(0)
    rank = len(node.same_rank(value))
    return _reduced(node, value, {node.spot(int(node.attr("axis", 0)), rank)})


@rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare"),
)
def reduce(node: Node) -> Answer:
    """Reduce over some axes; over all where none are given."""
    node.only(0)
    value, given = node.value(0), axes_of(node, 1)
    if given is None and node.find(1) is not None:
        raise NotProvedError("the axes over which it works are not known")
    rank = len(node.same_rank(value))
    if not given and node.attr("noop_with_empty_axes", 0):
        return like(value)
    return _reduced(node, value, {node.spot(axis, rank) for axis in given or range(rank)})


def _reduced(node: Node, value: Value, axes: set[int]) -> Value:
    _refuse_over(value, axes)
    keep = bool(node.attr("keepdims", 1))
    dims: list[Size] = [
        ONE if axis in axes else size for axis, size in enumerate(value.dims or ()) if keep or axis not in axes
    ]
    if value.axis is None:
        return fixed(tuple(dims))
    return rows(value.axis if keep else value.axis - sum(axis < value.axis for axis in axes), value.block, dims)


@rule("TopK")
def top_k(node: Node) -> Answer:
    """Take the largest entries along one axis, and their places."""
    node.only(0)
    value = node.value(0)
    dims = node.same_rank(value)
    axis = node.spot(int(node.attr("axis", -1)), len(dims))
    _refuse_over(value, [axis])
    return like(value, tuple(node.fresh() if at == axis else size for at, size in enumerate(dims)))
