"""Whether ONNX Runtime computes two lowerings with the same arithmetic: the graphs it writes, their sites abstracted.

Two lowerings round alike where the optimiser made the same nodes of everything but the sites. It need not: it fuses
MatMul and Add into Gemm where it knows the rank, moves a Transpose, keeps a value in the blocked layout or not. Then
the results differ by rounding, and equality is the wrong demand.

An output's description is a digest of how it is computed: operator, attributes, weights by value, and the
descriptions of the inputs. Every form of J counts as one operator, of its operand alone:

    ThresholdedRelu(z), JumpRelu(z), the activation ThresholdedRelu of a fused node
    Where(Greater(Sub(z, kappa), 0), z, 0)
    Mul(c, Cast(Greater(Sub(c, kappa), 0))), c = Clip(z) or Max(z, lowest)
    Clip(J), Min(J, cap)      the cap

Operators that only copy (Identity, the reorders of the blocked layout, copies between devices) are skipped. kappa is
not part of it: two graphs that differ in kappa alone are the same arithmetic, and must give equal results.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from jr_onnx.opsets import main_opset
from jr_onnx.semantics import OP_TYPE
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable

_COPIES = {"Identity", "ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost"}
_JUMPS = {"ThresholdedRelu", OP_TYPE}
_CAPS = {"Clip", "Min"}
_PARTS_OF_SITES = {"Sub", "Greater", "Cast", "Constant"}
Digest = bytes


@dataclass(frozen=True)
class Arithmetic:
    """How ONNX Runtime computes the outputs of a model.

    Attributes:
        outputs: A digest per output.
        operators: How often each operator occurs in the main graph, except those that sites consist of; for messages.
    """

    outputs: tuple[Digest, ...]
    operators: Counter[str]

    def difference(self, other: Arithmetic) -> str:
        """Say which operators stand here and not there; "" if both compute alike."""
        if self.outputs == other.outputs:
            return ""
        here, there = (_listed(one - two) for one, two in self._both_ways(other))
        if here == there:
            return "the same operators in another order"
        return f"{here or 'nothing'} here, {there or 'nothing'} there"

    def _both_ways(self, other: Arithmetic) -> list[tuple[Counter[str], Counter[str]]]:
        return [(self.operators, other.operators), (other.operators, self.operators)]


def optimised_arithmetic(model: Runnable) -> Arithmetic:
    """Return how ONNX Runtime computes a model with its optimisation on.

    Raises:
        CannotLoadError: It cannot load the model, or cannot write the optimised graph.
    """
    with tempfile.TemporaryDirectory(prefix="jr-onnx-") as folder:
        path = Path(folder) / "optimised.onnx"
        OrtSession(model, "optimised", written=path)
        return arithmetic(onnx.load(path))


def arithmetic(model: onnx.ModelProto) -> Arithmetic:
    """Return how a model computes its outputs."""
    state = _GraphState(main_opset(model) or 1, {})
    outputs = _describe(model.graph, state)
    return Arithmetic(tuple(outputs), state.operators)


@dataclass
class _GraphState:
    """What is known of the values of one graph and those around it."""

    opset: int
    known: dict[str, Digest]
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    jumped: set[str] = field(default_factory=set)
    operators: Counter[str] = field(default_factory=Counter)
    depth: int = 0


def _describe(graph: onnx.GraphProto, state: _GraphState) -> list[Digest]:
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        state.known[tensor.name] = _digest("constant", str(array.dtype), str(array.shape), array.tobytes())
    for position, value in enumerate(graph.input):
        state.known.setdefault(value.name, _digest("input", str(state.depth), str(position)))
    for node in graph.node:
        _enter(node, state)
    return [state.known.get(value.name, b"") for value in graph.output]


def _enter(node: onnx.NodeProto, state: _GraphState) -> None:
    for name in node.output:
        state.makers[name] = node
    inputs = [state.known.get(name, b"") for name in node.input]
    result = node.output[0]
    jump = _operand_of_jump(node, state)
    if node.op_type in _COPIES:
        state.known[result] = inputs[0]
        state.jumped |= {result} if node.input[0] in state.jumped else set()
    elif jump is not None:
        state.known[result] = _digest("J", state.known.get(jump, b""))
        state.jumped.add(result)
    elif node.op_type in _CAPS and node.input[0] in state.jumped:
        state.known[result] = inputs[0]
        state.jumped.add(result)
    else:
        fused = _activation(node) == "ThresholdedRelu"
        domain = "" if fused else node.domain  # the plain node of the standard domain, its activation apart
        own = _digest(domain, _plain_name(node), *_attributes(node, state), *inputs)
        for position, name in enumerate(node.output):
            described = _digest(str(position), own)
            state.known[name] = _digest("J", described) if fused else described
            state.jumped |= {name} if fused else set()
        if node.op_type not in _PARTS_OF_SITES:
            state.operators[_plain_name(node)] += 1


def _operand_of_jump(node: onnx.NodeProto, state: _GraphState) -> str | None:
    """Return the operand of a node that yields J of it, None for other nodes."""
    if node.op_type in _JUMPS:
        return str(node.input[0])
    if node.op_type == "Where" and len(node.input) == 3:
        compared = _compared(node.input[0], state)
        return compared if compared == node.input[1] else None
    if node.op_type == "Mul":
        for mask, value in (tuple(node.input), tuple(node.input)[::-1]):
            cast = state.makers.get(mask)
            if cast is None or cast.op_type != "Cast" or _compared(cast.input[0], state) != value:
                continue
            bounded = state.makers.get(value)
            is_bound = bounded is not None and bounded.op_type in ("Clip", "Max")
            return str(bounded.input[0]) if bounded is not None and is_bound else str(value)
    return None


def _compared(condition: str, state: _GraphState) -> str | None:
    """Return z of Greater(Sub(z, kappa), 0), None for another condition."""
    greater = state.makers.get(condition)
    if greater is None or greater.op_type != "Greater":
        return None
    shifted = state.makers.get(greater.input[0])
    return str(shifted.input[0]) if shifted is not None and shifted.op_type == "Sub" else None


def _activation(node: onnx.NodeProto) -> str:
    found = (item.s.decode("utf-8", "replace") for item in node.attribute if item.name == "activation")
    return next(found, "")


def _plain_name(node: onnx.NodeProto) -> str:
    return node.op_type.removeprefix("Fused") if _activation(node) == "ThresholdedRelu" else str(node.op_type)


def _attributes(node: onnx.NodeProto, state: _GraphState) -> list[bytes]:
    """Return the attributes as bytes, defaults left out; a sub-graph counts as the descriptions of its outputs."""
    defaults = _defaults(_plain_name(node), state.opset)
    fused = _activation(node) == "ThresholdedRelu"
    found = []
    for item in sorted(node.attribute, key=lambda attribute: attribute.name):
        if fused and item.name.startswith("activation"):
            continue
        if item.type == onnx.AttributeProto.GRAPH:
            inner = _GraphState(
                state.opset, dict(state.known), dict(state.makers), set(state.jumped), depth=state.depth + 1
            )
            found.append(_digest(item.name, *_describe(item.g, inner)))
        elif defaults.get(item.name) != onnx.helper.get_attribute_value(item):
            found.append(item.SerializeToString(deterministic=True))
    return found


@functools.cache
def _defaults(op_type: str, opset: int) -> dict[str, Any]:
    """Return the defaults of a standard operator's attributes: ONNX Runtime writes some of them out."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return {}
    given = ((name, item.default_value) for name, item in schema.attributes.items())
    return {name: onnx.helper.get_attribute_value(value) for name, value in given if value.name}


def _digest(*parts: str | bytes) -> Digest:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        found.update(len(raw).to_bytes(8, "little"))
        found.update(raw)
    return found.digest()


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
