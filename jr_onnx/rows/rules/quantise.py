"""Quantisation with scales that are the same for all rows; a scale taken from the rows ties them together."""

from __future__ import annotations

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import MICROSOFT, rule
from jr_onnx.rows.rules.elementwise import broadcast
from jr_onnx.rows.rules.shape import joined
from jr_onnx.rows.size import ONE
from jr_onnx.rows.value import NotProvedError, Value, like


@rule("DequantizeLinear", "QuantizeLinear")
@rule("DequantizeLinear", "QuantizeLinear", domain=MICROSOFT)
def quantise(node: Node) -> Answer:
    """Divide by a scale and round, or multiply by it: one for all, or one for each entry of one axis."""
    node.only(0)
    value = node.value(0)
    for index in (1, 2):
        _along(node, value, node.find(index))
    return like(value)


def _along(node: Node, value: Value, scale: Value | None) -> None:
    if value.axis is None or scale is None:
        return
    if scale.dims is None:
        raise NotProvedError("the rank of its scale is not known")
    if all(size == ONE for size in scale.dims):
        return
    if node.attr("block_size", 0) or len(scale.dims) != 1:
        raise NotProvedError("it quantises in blocks")
    if node.spot(int(node.attr("axis", 1)), len(value.dims or ())) == value.axis:
        raise NotProvedError("it may have a scale for each row")


@rule("DynamicQuantizeLinear")
def quantise_dynamically(node: Node) -> Answer:
    """Take the scale from the values themselves."""
    if node.value(0).axis is None:
        raise NotProvedError("its scale is taken from its input")
    raise NotProvedError("it takes one scale from all rows of the batch")


@rule("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", domain=MICROSOFT)
def multiply_dynamically(node: Node) -> Answer:
    """Quantise the input on the way."""
    return quantise_dynamically(node)


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def quantised_pair(node: Node) -> Answer:
    """Combine two quantised tensors: a, its scale and zero point, b, its scale and zero point, those of the result."""
    node.only(0, 3)
    node.scalars((1, 2, 4, 5, 6, 7))
    return broadcast([node.value(0), node.value(3)], node.fresh)


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def quantised_single(node: Node) -> Answer:
    """Change every quantised element by itself."""
    node.only(0)
    node.scalars(range(1, len(node.inputs)))
    return like(node.value(0))


@rule("QLinearConcat", domain=MICROSOFT)
def quantised_concat(node: Node) -> Answer:
    """Put quantised values behind each other: scale and zero point of the result, then value, scale, zero point."""
    values = list(range(2, len(node.inputs), 3))
    node.scalars(index for index in range(len(node.inputs)) if index not in values)
    return joined(node, [node.value(index) for index in values])


@rule("QLinearSoftmax", domain=MICROSOFT)
def quantised_softmax(node: Node) -> Answer:
    """Normalise along one axis; in the manner of opset 12 along all from that one on."""
    node.only(0)
    node.scalars(range(1, len(node.inputs)))
    value = node.value(0)
    rank = len(node.same_rank(value))
    axis = node.spot(int(node.attr("axis", -1)), rank)
    over = [axis] if node.attr("opset", 0) >= 13 else range(axis, rank)
    if value.axis in over:
        raise NotProvedError("it works over the axis of the batch")
    return like(value)
