"""Random models for property tests: nested control flow, shared functions, every ReLU form, names that collide.

The models are valid: the checker passes and a runtime can evaluate them, so that a property may be about values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from jr_onnx.rewrite.lowering.base import scalar_tensor

ELEMENT = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}
DOMAIN = "test.functions"
_CLIP_WITH_INPUTS = 11
_CLIP_WITH_DOUBLE = 12
_NAMES = ("relu", "relu", "act/relu", "If.then_branch", "y/jr_kappa", "", "", "v1", "block 1/Relu:0", "jr_kappa")
_IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10,
       23: 11, 24: 11, 25: 12}  # fmt: skip


@dataclass
class Build:
    """A model while it grows."""

    draw: st.DrawFn
    opset: int
    dtype: str
    runnable: bool = False
    depth: int = 0
    count: int = 0
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def fresh(self) -> str:
        """Return a value name: unique, and now and then one that a rewrite would like to use itself."""
        self.count += 1
        return self.draw(st.sampled_from([f"v{self.count}", f"v{self.count - 1}/jr_kappa", f"h {self.count}"])) + (
            f"~{self.count}"
        )

    def label(self) -> str:
        """Return a node name; ONNX Runtime refuses two of the same, so that a runnable model has none."""
        name = self.draw(st.sampled_from(_NAMES))
        self.count += 1
        return f"{name} {self.count}" if self.runnable and name else name

    def node(self, op_type: str, inputs: list[str], domain: str = "", **attributes: object) -> onnx.NodeProto:
        node = helper.make_node(
            op_type,
            inputs,
            [self.fresh()],
            name=self.label(),
            domain=domain,
            **attributes,  # type: ignore[arg-type]
        )
        if self.draw(st.integers(0, 7)) == 0:
            node.doc_string = "what it does"
            node.metadata_props.add(key="namespace", value="net/block")
        if self.draw(st.integers(0, 9)) == 0:
            node.MergeFromString(b"\xa2\x3f\x05extra")  # an unknown field, number 1012
        return node

    def constant(self, value: float) -> onnx.NodeProto:
        return self.node("Constant", [], value=scalar_tensor(value, self.dtype))


def _relu(build: Build, operand: str) -> list[onnx.NodeProto]:
    return [build.node("Relu", [operand])]


def _clip(build: Build, operand: str) -> list[onnx.NodeProto]:
    cap = build.draw(st.sampled_from([None, 6.0, 0.5, 1.0]))
    if build.opset < _CLIP_WITH_DOUBLE and build.dtype == "float64":
        return _relu(build, operand)  # ONNX Runtime has no such Clip
    if build.opset < _CLIP_WITH_INPUTS:
        bounds = {"min": 0.0} if cap is None else {"min": 0.0, "max": cap}
        return [build.node("Clip", [operand], **bounds)]
    low = build.constant(0.0)
    if cap is None:
        return [low, build.node("Clip", [operand, low.output[0]])]
    high = build.constant(cap)
    return [low, high, build.node("Clip", [operand, low.output[0], high.output[0]])]


def _max(build: Build, operand: str) -> list[onnx.NodeProto]:
    zero = build.constant(build.draw(st.sampled_from([0.0, -0.0])))
    pair = [operand, zero.output[0]]
    return [zero, build.node("Max", pair if build.draw(st.booleans()) else pair[::-1])]


def _affine(build: Build, operand: str) -> list[onnx.NodeProto]:
    """An exact operation, so that rounding never blurs a comparison."""
    kind = build.draw(st.sampled_from(["Neg", "Mul", "Identity"]))
    if kind != "Mul":
        return [build.node(kind, [operand])]
    two = build.constant(2.0)
    return [two, build.node("Mul", [operand, two.output[0]])]


def _add(build: Build, operand: str) -> list[onnx.NodeProto]:
    return [build.node("Max" if build.opset >= 8 else "Add", [operand, operand])]


def _if(build: Build, operand: str) -> list[onnx.NodeProto]:
    branches = {}
    build.depth += 1
    for name in ("then_branch", "else_branch"):
        nodes = _body(build, operand)
        branches[name] = _graph(build, f"{name}_graph", nodes, [])
    build.depth -= 1
    return [build.node("If", ["condition"], **branches)]


def _loop(build: Build, operand: str) -> list[onnx.NodeProto]:
    build.depth += 1
    number, go, state = build.fresh(), build.fresh(), build.fresh()
    keep = build.node("Identity", [go])
    nodes = _body(build, state)
    inputs = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(go, TensorProto.BOOL, []),
        helper.make_tensor_value_info(state, ELEMENT[build.dtype], ["N"]),
    ]
    body = _graph(build, "loop_body", [keep, *nodes], inputs, extra=keep.output[0])
    build.depth -= 1
    return [build.node("Loop", ["trips", "", operand], body=body)]


def _call(build: Build, operand: str) -> list[onnx.NodeProto]:
    if not build.functions or build.draw(st.booleans()):
        if build.depth or len(build.functions) >= 3:
            return _relu(build, operand)
        _new_function(build)
    function = build.draw(st.sampled_from(build.functions))
    return [build.node(function.name, [operand, ""][: len(function.input)], domain=DOMAIN)]


def _new_function(build: Build) -> None:
    build.depth += 1
    operand = build.fresh()
    nodes = _body(build, operand, inside_function=True)
    build.depth -= 1
    extra = ["unused"] if build.draw(st.booleans()) else []
    imports = [helper.make_opsetid("", build.opset), helper.make_opsetid(DOMAIN, 1)]
    name = f"act_{len(build.functions)}" + build.draw(st.sampled_from(["", "_jr"]))
    build.functions.append(helper.make_function(DOMAIN, name, [operand, *extra], [nodes[-1].output[0]], nodes, imports))


def _body(build: Build, operand: str, *, inside_function: bool = False) -> list[onnx.NodeProto]:
    makers = [_relu, _relu, _clip, _max, _affine, _affine, _add] if build.opset >= 8 else [_relu, _clip, _affine]
    if build.depth < 3 and not inside_function:
        makers += [_if, _loop] if build.opset >= 13 else [_if]
    if build.opset >= 15:
        makers += [_call, _call]
    nodes: list[onnx.NodeProto] = []
    current = operand
    for maker in build.draw(st.lists(st.sampled_from(makers), min_size=1, max_size=4 if build.depth == 0 else 2)):
        nodes += maker(build, current)
        current = nodes[-1].output[0]
    return nodes


def _graph(
    build: Build, name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], extra: str | None = None
) -> onnx.GraphProto:
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], ELEMENT[build.dtype], ["N"])]
    if extra is not None:
        outputs.insert(0, helper.make_tensor_value_info(extra, TensorProto.BOOL, []))
    return helper.make_graph(nodes, name, inputs, outputs, doc_string=build.draw(st.sampled_from(["", "a body"])))


@st.composite
def models(
    draw: st.DrawFn,
    dtypes: tuple[str, ...] = ("float32",),
    opsets: tuple[int, int] = (7, 25),
    *,
    runnable: bool = False,
) -> onnx.ModelProto:
    """Return a valid model with the input x, and condition and trips where control flow may use them."""
    dtype = draw(st.sampled_from(dtypes))
    lowest = {"bfloat16": 16, "float64": 8}.get(dtype, 7)
    opset = draw(st.integers(max(lowest, opsets[0]), opsets[1]))
    build = Build(draw, opset, dtype, runnable)
    nodes = _body(build, "x")
    graph = _graph(
        build,
        "main",
        nodes,
        [
            helper.make_tensor_value_info("x", ELEMENT[dtype], ["N"]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("trips", TensorProto.INT64, []),
        ],
    )
    _decorate(draw, graph, dtype, opset)
    imports = [helper.make_opsetid("", opset)]
    if build.functions:
        imports.append(helper.make_opsetid(DOMAIN, 1))
    model = helper.make_model(graph, opset_imports=imports, functions=build.functions, producer_name="someone")
    model.ir_version = _IR[opset]
    if draw(st.booleans()):
        model.metadata_props.add(key="author", value="äöü")
    if draw(st.booleans()):
        model.MergeFromString(b"\xa2\x3f\x05model")
        model.graph.MergeFromString(b"\xa8\x3f\x07")
    return model


def _decorate(draw: st.DrawFn, graph: onnx.GraphProto, dtype: str, opset: int) -> None:
    """Add what generic tools lose: annotations, value infos without use, sparse initializers, two graph outputs."""
    if draw(st.booleans()):
        graph.value_info.append(helper.make_tensor_value_info("nowhere/jr_zero", TensorProto.INT32, [3]))
        graph.quantization_annotation.add(tensor_name="x").quant_parameter_tensor_names.add(key="SCALE", value="s")
    if draw(st.booleans()) and opset >= 11:
        sparse = graph.sparse_initializer.add(dims=[4])
        sparse.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0]))
        sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [3]))
    inner = [node for node in graph.node[:-1] if node.op_type in ("Relu", "Max", "Neg") and node.output[0]]
    if inner and draw(st.booleans()):
        graph.output.append(helper.make_tensor_value_info(inner[0].output[0], ELEMENT[dtype], ["N"]))


def inputs_for(dtype: str, kappa: float) -> np.ndarray:
    """Return operands around kappa and at every edge of the dtype, without NaN."""
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[kind.itemsize]
    near = np.asarray([kappa, kappa / 2, 6.0, 0.5, 1.0], dtype=kind).view(bits)
    around = np.concatenate([near - 1, near, near + 1]).astype(bits).view(kind)
    around = around[np.isfinite(around.astype(np.float64))]
    info = ml_dtypes.finfo(kind)
    edges = [0.0, -0.0, np.inf, -np.inf, float(info.max), float(info.min), float(info.smallest_subnormal)]
    rest = np.random.default_rng(0).normal(size=20)
    return np.concatenate([around, -around, np.asarray([*edges, *rest]).astype(kind)])
