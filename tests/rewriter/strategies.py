"""Random models for property tests: nested control flow and functions, every ReLU form, names that collide.

Functions are shared, call each other, take attributes by reference, have overloads and operator sets of their own;
initializers may be overridable, in sub-graphs too; element types change on the way.

The models are valid: the checker passes and a runtime can evaluate them, so that a property may be about values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from jr_onnx.rewriter.lowering.base import constant_tensor

ELEMENT = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}
DOMAIN = "test.functions"
_CLIP_WITH_INPUTS = 11
_CLIP_WITH_DOUBLE = 12
_OVERLOADS_SINCE_IR = 10
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
    inside: list[str] = field(default_factory=lambda: ["main"])
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    overridable: set[str] = field(default_factory=set)
    wide: set[str] = field(default_factory=set)

    @property
    def in_function(self) -> bool:
        """Whether the nodes come to lie in a function, at any depth."""
        return "function" in self.inside

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
        return self.node("Constant", [], value=constant_tensor(value, self.dtype))

    def bound(self, value: float) -> tuple[list[onnx.NodeProto], str]:
        """Return a scalar: a Constant node, or an initializer of the main graph, which may be overridable."""
        if self.in_function or self.draw(st.integers(0, 2)):
            node = self.constant(value)
            return [node], node.output[0]
        name = self.fresh()
        tensor = constant_tensor(value, self.dtype)
        tensor.name = name
        self.initializers[name] = tensor
        if _IR[self.opset] < 4 or self.draw(st.booleans()):
            self.overridable.add(name)
        return [], name


def _relu(build: Build, operand: str) -> list[onnx.NodeProto]:
    return [build.node("Relu", [operand])]


def _clip(build: Build, operand: str) -> list[onnx.NodeProto]:
    cap = build.draw(st.sampled_from([None, 6.0, 0.5, 1.0]))
    if build.opset < _CLIP_WITH_DOUBLE and build.dtype == "float64":
        return _relu(build, operand)  # ONNX Runtime has no such Clip
    if build.opset < _CLIP_WITH_INPUTS:
        bounds = {"min": 0.0} if cap is None else {"min": 0.0, "max": cap}
        return [build.node("Clip", [operand], **bounds)]
    nodes, low = build.bound(0.0)
    if cap is None:
        return [*nodes, build.node("Clip", [operand, low])]
    more, high = build.bound(cap)
    return [*nodes, *more, build.node("Clip", [operand, low, high])]


def _max(build: Build, operand: str) -> list[onnx.NodeProto]:
    nodes, zero = build.bound(build.draw(st.sampled_from([0.0, -0.0])))
    pair = [operand, zero]
    return [*nodes, build.node("Max", pair if build.draw(st.booleans()) else pair[::-1])]


def _affine(build: Build, operand: str) -> list[onnx.NodeProto]:
    """An exact operation, so that rounding never blurs a comparison."""
    kind = build.draw(st.sampled_from(["Neg", "Mul", "Identity"]))
    if kind != "Mul":
        return [build.node(kind, [operand])]
    two = build.constant(2.0)
    return [two, build.node("Mul", [operand, two.output[0]])]


def _add(build: Build, operand: str) -> list[onnx.NodeProto]:
    return [build.node("Max" if build.opset >= 8 else "Add", [operand, operand])]


def _wider(build: Build, operand: str) -> list[onnx.NodeProto]:
    """A ReLU in a wider element type, which changes no value."""
    narrow = build.dtype
    wide = {"float16": "float32", "float32": "float64", "bfloat16": "float32"}.get(narrow)
    if wide is None:
        return _relu(build, operand)
    there = build.node("Cast", [operand], to=ELEMENT[wide])
    build.dtype = wide
    middle = build.draw(st.sampled_from([_relu, _max] if build.opset >= 13 else [_relu]))(build, there.output[0])
    build.dtype = narrow
    build.wide.update(name for node in (there, *middle) for name in node.output)
    return [there, *middle, build.node("Cast", [middle[-1].output[0]], to=ELEMENT[narrow])]


def _if(build: Build, operand: str) -> list[onnx.NodeProto]:
    branches = {}
    build.depth += 1
    build.inside.append("branch")
    for name in ("then_branch", "else_branch"):
        nodes = _body(build, operand)
        branches[name] = _graph(build, f"{name}_graph", nodes, [])
    build.depth -= 1
    build.inside.pop()
    return [build.node("If", ["condition"], **branches)]


def _scan(build: Build, operand: str) -> list[onnx.NodeProto]:
    """Carry the operand through two steps of a Scan, which copies a constant on the way."""
    build.depth += 1
    build.inside.append("scan")
    two = onnx.TensorProto(data_type=ELEMENT[build.dtype], dims=[2])
    two.raw_data = constant_tensor(1.0, build.dtype).raw_data * 2
    given = build.node("Constant", [], value=two)
    state, item = build.fresh(), build.fresh()
    copied = build.node("Identity", [item])
    nodes = _body(build, state)
    kind = ELEMENT[build.dtype]
    inputs = [helper.make_tensor_value_info(state, kind, ["N"]), helper.make_tensor_value_info(item, kind, [])]
    body = _graph(build, "scan_body", [copied, *nodes], inputs)
    body.output.append(helper.make_tensor_value_info(copied.output[0], kind, []))
    build.depth -= 1
    build.inside.pop()
    scan = build.node("Scan", [operand, given.output[0]], body=body, num_scan_inputs=1)
    scan.output.append(build.fresh())
    return [given, scan]


def _loop(build: Build, operand: str) -> list[onnx.NodeProto]:
    build.depth += 1
    build.inside.append("loop")
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
    build.inside.pop()
    # The reference evaluator takes a condition that is left out for false.
    true = onnx.TensorProto(data_type=TensorProto.BOOL, int32_data=[1])
    onwards = build.node("Constant", [], value=true)
    return [onwards, build.node("Loop", ["trips", onwards.output[0], operand], body=body)]


def _call(build: Build, operand: str) -> list[onnx.NodeProto]:
    if not build.functions or build.draw(st.booleans()):
        if build.depth or len(build.functions) >= 4:
            return _relu(build, operand)
        _new_function(build)
    function = build.draw(st.sampled_from(build.functions))
    attributes = {"slope": build.draw(st.sampled_from([0.5, 2.0]))} if "slope" in function.attribute else {}
    node = build.node(function.name, [operand, ""][: len(function.input)], domain=DOMAIN, **attributes)
    node.overload = function.overload
    return [node]


def _slope(build: Build, operand: str) -> list[onnx.NodeProto]:
    """An attribute by reference; powers of two keep it exact."""
    node = build.node("LeakyRelu", [operand])
    node.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    return [node]


def _new_function(build: Build) -> None:
    build.depth += 1
    build.inside.append("function")
    operand = build.fresh()
    nodes = _body(build, operand)
    attributes = []
    # The reference evaluator, which alone runs bfloat16, hands no attributes to functions.
    if build.opset >= 16 and build.dtype != "bfloat16" and build.draw(st.integers(0, 3)) == 0:
        nodes = [*nodes, *_slope(build, nodes[-1].output[0])]
        attributes = ["slope"]
    build.depth -= 1
    build.inside.pop()
    extra = ["unused"] if build.draw(st.booleans()) else []
    imports = [helper.make_opsetid("", _own_opset(build, nodes)), helper.make_opsetid(DOMAIN, 1)]
    number = len(build.functions)
    overloads = [""] if _IR[build.opset] < _OVERLOADS_SINCE_IR or not number else ["", f"v{number}"]
    overload = build.draw(st.sampled_from(overloads))
    name = build.functions[-1].name if overload else f"act_{number}" + build.draw(st.sampled_from(["", "_jr"]))
    inputs, outputs = [operand, *extra], [nodes[-1].output[0]]
    build.functions.append(helper.make_function(DOMAIN, name, inputs, outputs, nodes, imports, attributes))
    build.functions[-1].overload = overload


def _own_opset(build: Build, nodes: list[onnx.NodeProto]) -> int:
    """Return an operator set for a function, in which all its nodes are what they are in the model's."""
    if build.draw(st.booleans()):
        return build.opset
    used = [node.op_type for node in every_node(nodes) if not node.domain]
    allowed = [version for version in range(7, 26) if all(_same(name, version, build.opset) for name in used)]
    return build.draw(st.sampled_from(allowed))


def _same(op_type: str, one: int, other: int) -> bool:
    try:
        versions = {onnx.defs.get_schema(op_type, version, "").since_version for version in (one, other)}
    except onnx.defs.SchemaError:
        return False
    return len(versions) == 1


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their sub-graphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g.node)


def _body(build: Build, operand: str) -> list[onnx.NodeProto]:
    makers = [_relu, _relu, _clip, _max, _affine, _affine, _add] if build.opset >= 8 else [_relu, _clip, _affine]
    if build.depth < 3 and not build.in_function:
        makers += [_if, _loop, _scan] if build.opset >= 13 else [_if]
    if build.opset >= 15:
        makers += [_call, _call]
    if not build.in_function:
        makers.append(_wider)
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
    _decorate(build, graph)
    graph.initializer.extend(build.initializers.values())
    for name in build.initializers:
        if name in build.overridable:
            graph.input.append(helper.make_tensor_value_info(name, build.initializers[name].data_type, []))
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


def _decorate(build: Build, graph: onnx.GraphProto) -> None:
    """Add what generic tools lose: annotations, value infos without use, sparse initializers, two graph outputs."""
    draw, dtype, opset = build.draw, build.dtype, build.opset
    if draw(st.booleans()):
        graph.value_info.append(helper.make_tensor_value_info("nowhere/jr_zero", TensorProto.INT32, [3]))
        graph.quantization_annotation.add(tensor_name="x").quant_parameter_tensor_names.add(key="SCALE", value="s")
    if draw(st.booleans()) and opset >= 11:
        sparse = graph.sparse_initializer.add(dims=[4])
        sparse.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0]))
        sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [3]))
    inner = [node for node in graph.node[:-1] if node.op_type in ("Relu", "Max", "Neg") and node.output[0]]
    inner = [node for node in inner if node.output[0] not in build.wide]
    if inner and draw(st.booleans()):
        graph.output.append(helper.make_tensor_value_info(inner[0].output[0], ELEMENT[dtype], ["N"]))


def dtype_of(model: onnx.ModelProto) -> str:
    """Return the NumPy name of the element type of the input x."""
    number = model.graph.input[0].type.tensor_type.elem_type
    return next(name for name, element in ELEMENT.items() if element == number)


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
