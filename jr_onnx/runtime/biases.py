"""Find what a jump behind a convolution can take along: the convolution's bias, and a residual sum.

    Conv(x, w, b) -> z -> J                     Conv(x, w) -> z -> BiasJumpRelu(z, b)
    Conv(x, w, b) -> z, Add(z, r) -> J          Conv(x, w) -> z -> BiasJumpRelu(z, b, r)

ONNX Runtime's CUDA provider runs the bias of a convolution, a residual sum and the activation as passes over memory of
their own; this leaves one. The sums are rounded as they were before, so nothing but the number of passes changes.

Where the provider keeps convolutions in the layout (N, H, W, C), the channels are the last axis.

A value that anything else reads stays where it is. A residual must be proved to have the shape of z: Add may broadcast,
the operator does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from jr_onnx.opsets import STANDARD_DOMAINS
from jr_onnx.rewriter.scopes import Scope, walk
from jr_onnx.runtime.markers import Found
from jr_onnx.runtime.nhwc import NHWC, in_standard_layout

_CONVOLUTIONS = ("Conv", "ConvTranspose")
BIAS_INPUT = 2  # the input of both that holds the bias


@dataclass(frozen=True)
class Tail:
    """What is between a convolution and a jump.

    Attributes:
        convolution: Index of the convolution in its scope.
        add: Index of the residual sum, None without one.
        operand: Name of the convolution's result.
        bias: Name of the bias; "" where the convolution has none and a residual is there.
        residual: Name of the other summand, "" without one.
        channels: Number of channels where `bias` is "", else 0.
        axis: The axis of the convolution's result that holds the channels.
    """

    convolution: int
    add: int | None
    operand: str
    bias: str
    residual: str
    channels: int
    axis: int


def find_tails(model: onnx.ModelProto, found: Sequence[Found]) -> dict[tuple[Scope, int], Tail]:
    """Return the tails of the markers that have one, by the marker's scope and index."""
    shapes = _shapes(model)
    views = {scope: _View(scope, shapes if scope.is_main else {}) for scope in {item.scope for item in found}}
    tails = {}
    for item in found:
        tail = None if item.fused else views[item.scope].tail(str(item.scope.nodes[item.index].input[0]))
        if tail is not None:
            tails[item.scope, item.index] = tail
    return tails


class _View:
    """The nodes of one scope by what they yield, and how often every value is read."""

    def __init__(self, scope: Scope, shapes: dict[str, tuple[int | str, ...]]) -> None:
        self._scope = scope
        self._shapes = shapes
        self._producers = {name: index for index, node in enumerate(scope.nodes) for name in node.output if name}
        self._reads = Counter(_reads(scope))
        graph, function = scope.graph, scope.function
        self._weights = {tensor.name: tensor for tensor in graph.initializer} if graph is not None else {}
        if graph is not None:
            self._reads.update(value.name for value in graph.output)
        elif function is not None:
            self._reads.update(function.output)

    def tail(self, operand: str) -> Tail | None:
        """Return what comes before a jump of this operand, None where there is nothing to take along."""
        producer = self._only_reader(operand)
        if producer is None:
            return None
        index, node = producer
        if _is_convolution(node):
            bias = _bias(node)
            return Tail(index, None, operand, bias, "", 0, _axis(node)) if bias else None
        if node.op_type == "Add" and node.domain in STANDARD_DOMAINS:
            return self._residual(index, node)
        return None

    def _residual(self, add: int, node: onnx.NodeProto) -> Tail | None:
        tails = []
        for operand, other in (tuple(node.input), tuple(reversed(node.input))):
            producer = self._only_reader(operand)
            if producer is None or operand == other or not self._same_shape(operand, other):
                continue
            index, source = producer
            if not _is_convolution(source):
                continue
            bias = _bias(source)
            channels = 0 if bias else self._channels(source)
            if bias or channels:
                tails.append(Tail(index, add, operand, bias, other, channels, _axis(source)))
        # Of two convolutions, the one with a bias: that is one pass more.
        return max(tails, key=lambda tail: bool(tail.bias), default=None)

    def _only_reader(self, name: str) -> tuple[int, onnx.NodeProto] | None:
        """Return the node that yields a value which one place alone reads."""
        index = self._producers.get(name)
        if index is None or self._reads[name] != 1:
            return None
        node = self._scope.nodes[index]
        return (index, node) if len(node.output) == 1 else None

    def _same_shape(self, one: str, other: str) -> bool:
        shape = self._shapes.get(one)
        return shape is not None and shape == self._shapes.get(other)

    def _channels(self, node: onnx.NodeProto) -> int:
        """Return the number of channels that a convolution yields, 0 where the weight is not in the file."""
        weight = self._weights.get(node.input[1])
        if weight is None or len(weight.dims) < BIAS_INPUT:
            return 0
        if node.op_type == "Conv":
            return int(weight.dims[0])
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return int(weight.dims[1] * group)


def _is_convolution(node: onnx.NodeProto) -> bool:
    return node.op_type in _CONVOLUTIONS and node.domain in (*STANDARD_DOMAINS, NHWC)


def _axis(node: onnx.NodeProto) -> int:
    return -1 if node.domain == NHWC else 1


def _bias(node: onnx.NodeProto) -> str:
    return str(node.input[BIAS_INPUT]) if len(node.input) > BIAS_INPUT else ""


def _reads(scope: Scope) -> Iterator[str]:
    """Yield the name of every value that a scope's nodes, or those of sub-graphs in it, read."""
    for inner in walk(scope):
        for node in inner.nodes:
            yield from (str(name) for name in node.input)
        if inner is not scope and inner.graph is not None:
            yield from (str(value.name) for value in inner.graph.output)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Return the shapes of the main graph's values as far as every dimension has a size or a name."""
    try:
        inferred = onnx.shape_inference.infer_shapes(in_standard_layout(model))
    except Exception:  # noqa: BLE001 - whatever it stumbles over, nothing is known of shapes then
        return {}
    found: dict[str, tuple[int | str, ...]] = {}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "") for dim in tensor.shape.dim]
        if tensor.HasField("shape") and "" not in dims:
            found[value.name] = tuple(dims)
    return found
