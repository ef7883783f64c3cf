"""Operators that work element by element, with broadcasting.

Broadcasting lines up axes from the end, so that the rows of one input can come to lie along another axis of a second
one: `(N, C) + (N,)` adds number c of the second to column c of the first. Rows stay apart only where all inputs have
them at the same axis from the end, and a constant has at most one entry there; a constant with as many entries as the
batch happens to have rows would give each row another number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import MICROSOFT, rule
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import Dims, NotProvedError, Value, fixed, like, rows
from jr_onnx.semantics import BLOCK_ATTRIBUTE, OP_DOMAIN, OP_TYPE

_ONE_INPUT = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
_SEVERAL_INPUTS = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)


def joint(sizes: Sequence[Size], fresh: Callable[[], Size]) -> Size:
    """Return the size that broadcasting makes of several at one axis."""
    others = {size for size in sizes if size != ONE}
    if len(others) <= 1:
        return next(iter(others), ONE)
    plain = [size for size in others if size.number is not None]
    return plain[0] if len(plain) == 1 else fresh()


def broadcast(values: Sequence[Value], fresh: Callable[[], Size]) -> Value:
    """Return what an element-wise operator makes of values, refusing where their rows would meet.

    Raises:
        NotProvedError: Rows lie along different axes, or along an axis of a constant.
    """
    carrying = [value for value in values if value.axis is not None]
    dims_of = [value.dims for value in values]
    if any(dims is None for dims in dims_of):
        if carrying:
            raise NotProvedError("the rank of one of its inputs is not known, so broadcasting may mix rows")
        return fixed()
    known: list[Dims] = [dims for dims in dims_of if dims is not None]
    rank = max((len(dims) for dims in known), default=0)
    sizes = [joint([dims[at] for dims in known if len(dims) >= -at], fresh) for at in range(-rank, 0)]
    if not carrying:
        return fixed(tuple(sizes))
    place, block = carrying[0].from_end, carrying[0].block
    for value, dims in zip(values, known, strict=True):
        if value.axis is not None and (value.from_end, value.block) != (place, block):
            raise NotProvedError("broadcasting lays the rows of its inputs along different axes")
        if value.axis is None and len(dims) >= -place and dims[place] != ONE:
            raise NotProvedError("broadcasting lays an axis of a value that is the same for all rows along the rows")
    return rows(rank + place, block, sizes)


@rule(*_ONE_INPUT)
@rule("Gelu", "QuickGelu", "Silu", domain=MICROSOFT)
def one_input(node: Node) -> Answer:
    """Change every element by itself."""
    node.only(0)
    value = node.value(0)
    return like(value)


@rule(*_SEVERAL_INPUTS)
@rule("BiasGelu", "FastGelu", domain=MICROSOFT)
def several_inputs(node: Node) -> Answer:
    """Combine elements that broadcasting brings together."""
    if node.attr("broadcast", 0):
        raise NotProvedError("it broadcasts in the manner of opset 6 and below")
    return broadcast(node.given(), node.fresh)


@rule(OP_TYPE, domain=OP_DOMAIN)
def jump_relu(node: Node) -> Answer:
    """Compare elements with one kappa, or with their channel's; in blocks, the place in memory tells the channel."""
    if node.attr(BLOCK_ATTRIBUTE, 0) and node.value(0).axis != 0:
        raise NotProvedError("its channels lie in blocks, and its rows do not lie along the first axis")
    return several_inputs(node)


@rule("CastLike")
def cast_like(node: Node) -> Answer:
    """Change the element type to that of the second input, of which nothing else matters."""
    return like(node.value(0))


@rule("Clip")
def clip(node: Node) -> Answer:
    """Bound every element by two numbers."""
    node.only(0)
    return like(node.value(0))


@rule("Dropout")
def dropout(node: Node) -> Answer:
    """Pass values on; in training mode it draws random numbers."""
    node.only(0)
    if node.version >= 12:
        mode = node.find(2)
        if mode is not None and (mode.content is None or mode.elements[0] is not False):
            raise NotProvedError("it may be in training mode, where it draws random numbers")
    elif node.version < 7 and not node.attr("is_test", 0):
        raise NotProvedError("it is in training mode, where it draws random numbers")
    return like(node.value(0))
