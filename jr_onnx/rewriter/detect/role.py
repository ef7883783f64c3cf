"""What a bounded ReLU is for: an activation, a gate, or a clamp; the last two are left alone unless they are asked for.

    y = Clip(x + 3, 0, 6);  x * y, y / 6, y * (1/6)      gate: hard swish and hard sigmoid, written out
    Clip(0.2 x + 0.5, 0, 1)                              gate: hard sigmoid
    Clip(pixels, 0, 1), logits = Clip(z, 0, 255)         clamp: of the model's input, or of its output
    Round(Clip(z / s, 0, 255)), Clip(Round(z / s), 0, 15)   clamp: of a quantiser that is written out
    Clip(Sigmoid(z), 0, 1)                               clamp: of what lies between 0 and 1 anyway

A jump in a gate would switch whole channels, and a jump in a clamp would erase dark pixels; neither is an activation.
Both have an upper bound: in the node itself, or in a Min or Clip right behind or before it. A ReLU without one is an
activation wherever it stands, and so is a ReLU6 on the input or the output, for no range ends at 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.detect.base import Context, Match
from jr_onnx.rewriter.detect.bounds import clip_bounds
from jr_onnx.rewriter.detect.zeros import number_of
from jr_onnx.rewriter.scopes import Scope

_RELU6 = 6.0
_FAR = 8
# 1/6 in float16 is off by 2.4e-4, as written by hand ("0.1667") by 2e-4.
_NEARLY = 1e-3
_MOVING = {"Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
_ROUNDING = {"Round", "Floor", "Ceil"}
_PROBABILITIES = {"Sigmoid", "HardSigmoid", "Softmax"}
_AFFINE = {"Add", "Sub", "Mul", "Div"}

Kind = Literal["gate", "clamp", "jump"]
Consumers = Mapping[str, list[onnx.NodeProto]]


@dataclass(frozen=True)
class Aside:
    """A ReLU that is not an activation of its own, and how that is seen."""

    kind: Kind
    reason: str


def set_aside(context: Context, scope: Scope, match: Match, output: str, consumers: Consumers) -> Aside | None:
    """Return why a ReLU is not an activation, None if it is one.

    Args:
        context: The model.
        scope: Where the ReLU is.
        match: The ReLU.
        output: Name of its result.
        consumers: Name of a value of the scope -> the scope's nodes that read it.
    """
    if not match.operand:
        return None  # the activation of a fused convolution
    cap, operand, result = _bounded(context, scope, match, output, consumers)
    if cap is None:
        return None
    chain = list(_sources(context, scope, operand))
    why = _gates(context, scope, result, cap, chain, consumers)
    if why:
        return Aside("gate", f"{why}; it is a gate, not an activation")
    if cap == 1 and _adds(context, scope, operand, 0.5):
        return Aside("gate", "it bounds a x + 0.5 to [0, 1], which is a hard sigmoid; it is a gate, not an activation")
    what = _makes(context, scope, operand)
    if what in _ROUNDING or any(_is_standard(node, _ROUNDING) for node in consumers.get(result, ())):
        return Aside("clamp", f"it bounds numbers that are rounded to [0, {cap:g}]; it is the clamp of a quantiser")
    if cap == 1 and what in _PROBABILITIES:
        return Aside("clamp", f"it bounds the result of {what} to [0, 1]; it is a clamp, not an activation")
    if cap == _RELU6:
        return None
    if scope.is_main and any(_is_input(holder, name) for holder, name in chain):
        return Aside("clamp", f"it bounds an input of the model to [0, {cap:g}]; it is a clamp, not an activation")
    if scope.is_main and _reaches_output(context, scope, result, consumers):
        return Aside("clamp", f"it bounds an output of the model to [0, {cap:g}]; it is a clamp, not an activation")
    return None


def _bounded(
    context: Context, scope: Scope, match: Match, output: str, consumers: Consumers
) -> tuple[float | None, str, str]:
    """Return the upper bound, the operand before it and the result behind it."""
    if match.cap is not None:
        return match.cap, match.operand, output
    readers = consumers.get(output, [])
    if len(readers) == 1:
        bound, read = _upper(context, scope, readers[0])
        if bound is not None and read == output:
            return bound, match.operand, str(readers[0].output[0])
    found = context.constants.producer(scope, match.operand)
    if found is not None:
        bound, read = _upper(context, *found)
        if bound is not None:
            return bound, read, output
    return None, match.operand, output


def _upper(context: Context, scope: Scope, node: onnx.NodeProto) -> tuple[float | None, str]:
    """Return the upper bound of a Min with a number or a Clip without a lower bound, and what it bounds."""
    if node.op_type not in ("Clip", "Min") or normal_domain(node.domain) or not node.input or not node.output:
        return None, ""
    if node.op_type == "Clip":
        low, high = clip_bounds(context, scope, node)
        return (high, str(node.input[0])) if low is None and high is not None and high > 0 else (None, "")
    if len(node.input) == 2 and node.op_type == "Min":
        for value, bound in (node.input, node.input[::-1]):
            number = number_of(context, scope, bound)
            if number is not None and number > 0:
                return number, str(value)
    return None, ""


def _sources(context: Context, scope: Scope, name: str) -> Iterator[tuple[Scope, str]]:
    """Yield the operand and what it was made of by adding and multiplying numbers, nearest first."""
    for _ in range(_FAR):
        scope, name = context.constants.origin(scope, name)
        yield scope, name
        found = context.constants.producer(scope, name)
        if found is None or normal_domain(found[1].domain) or not found[1].input:
            return
        scope, node = found
        if node.op_type in _MOVING:
            name = str(node.input[0])
        elif node.op_type in _AFFINE and len(node.input) == 2:
            others = [str(item) for item in node.input if number_of(context, scope, item) is None]
            if len(others) != 1:
                return
            name = others[0]
        else:
            return


def _makes(context: Context, scope: Scope, name: str) -> str:
    """Return the standard operator that computes a value, "" where there is none."""
    found = context.constants.producer(scope, name)
    return "" if found is None or normal_domain(found[1].domain) else str(found[1].op_type)


def _is_standard(node: onnx.NodeProto, operators: set[str]) -> bool:
    return not normal_domain(node.domain) and node.op_type in operators


def _adds(context: Context, scope: Scope, name: str, wanted: float) -> bool:
    found = context.constants.producer(scope, name)
    if found is None or found[1].op_type != "Add" or normal_domain(found[1].domain):
        return False
    return any(number_of(context, found[0], item) == wanted for item in found[1].input)


def _gates(
    context: Context, scope: Scope, result: str, cap: float, chain: list[tuple[Scope, str]], consumers: Consumers
) -> str:
    """Say how the result is used as a gate, "" where it is not."""
    front = [result]
    for _ in range(_FAR):
        further: list[str] = []
        for name in front:
            for node in consumers.get(name, ()):
                if normal_domain(node.domain) or not node.output:
                    continue
                if node.op_type in ("Identity", "Cast", "CastLike") and node.input[0] == name:
                    further.append(str(node.output[0]))
                if node.op_type not in ("Mul", "Div") or len(node.input) != 2:
                    continue
                other = str(node.input[1] if node.input[0] == name else node.input[0])
                number = number_of(context, scope, other)
                if number is None:
                    if node.op_type == "Mul" and any(item in chain for item in _sources(context, scope, other)):
                        return "its result is multiplied with its own input"
                    continue
                scale = number if node.op_type == "Mul" else (1 / number if number and node.input[0] == name else 0.0)
                if cap != 1 and abs(scale * cap - 1) < _NEARLY:
                    return f"its result is scaled by 1/{cap:g}"
                further.append(str(node.output[0]))
        front = further
    return ""


def _is_input(scope: Scope, name: str) -> bool:
    graph = scope.graph
    return scope.is_main and graph is not None and any(value.name == name for value in graph.input)


def _reaches_output(context: Context, scope: Scope, result: str, consumers: Consumers) -> bool:
    """Tell whether nothing but reshaping, scaling and rounding stands between a value and an output of the model."""
    outputs = {str(value.name) for value in scope.graph.output} if scope.graph is not None else set()
    name = result
    for _ in range(_FAR):
        if name in outputs:
            return True
        readers = consumers.get(name, [])
        if len(readers) != 1 or normal_domain(readers[0].domain) or not readers[0].output:
            return False
        scaling = readers[0].op_type in _AFFINE and any(
            number_of(context, scope, item) is not None for item in readers[0].input
        )
        if not (scaling or readers[0].op_type in _MOVING or readers[0].op_type in _ROUNDING):
            return False
        name = str(readers[0].output[0])
    return False
