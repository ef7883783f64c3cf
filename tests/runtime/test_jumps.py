"""The jump in a marker's place: run in ONNX Runtime against the definition, at every opset and in every host."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.provenance import Provenance, SiteRecord, Undo
from jr_onnx.rewriter.scopes import main_scope
from jr_onnx.runtime.biases import Tail
from jr_onnx.runtime.jumps import KappaSource, kappa_source, write_jumps
from jr_onnx.runtime.markers import Found, NotFollowedError
from jr_onnx.runtime.ops_library import library_path, register
from jr_onnx.semantics import jump_relu

KAPPA = 0.5
Z = np.array([[-np.inf, -1.0, -0.0, 0.0, 0.25, 0.5, 0.50000006, 1.0, 7.0, np.inf]], dtype=np.float32)


def source(**changes: Any) -> KappaSource:
    fields: dict[str, Any] = {
        "inputs": (),
        "initializers": (),
        "nodes": (),
        "own": None,
        "has_library": False,
        **changes,
    }
    return KappaSource(**fields)


@pytest.fixture
def library() -> None:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler on this machine")
    library_path("cpu")


def from_input() -> KappaSource:
    """Kappa comes from the graph input "kappa", whose default is KAPPA."""
    return source(
        inputs=(helper.make_tensor_value_info("kappa", TensorProto.FLOAT, []),),
        initializers=(numpy_helper.from_array(np.float32(KAPPA), "kappa"),),
    )


def site(cap: float | None = None, kappa: float = KAPPA) -> SiteRecord:
    return SiteRecord(
        id="act", form="relu", dtype="float32", scope="", output="y", kappa=kappa, cap=cap, lowering="thresholded",
        nodes=1, original="",
    )  # fmt: skip


def model(opset: int, *nodes: onnx.NodeProto, tensors: dict[str, np.ndarray] | None = None, **shapes: Any) -> Any:
    """A model of nodes from "x" to "y"."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes.get("x", Z.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes.get("y"))],
        [numpy_helper.from_array(value, name) for name, value in (tensors or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=4)


def marker() -> onnx.NodeProto:
    return helper.make_node("HardSigmoid", ["x"], ["y"], name="act", alpha=2.0, beta=-7.5)


def written(
    graph: onnx.ModelProto, index: int, where: SiteRecord, come: KappaSource, *, fused: bool, tail: Tail | None = None
) -> list[onnx.NodeProto]:
    scope = main_scope(graph)
    write_jumps(graph, [Found(scope, index, where, fused)], come, {} if tail is None else {(scope, index): tail})
    return list(graph.graph.node)


def run(graph: onnx.ModelProto, come: KappaSource, **feed: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if come.has_library:
        register(options, "cpu")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def steps(nodes: list[onnx.NodeProto]) -> list[str]:
    return [node.op_type for node in nodes if node.op_type != "Constant"]


# At opset 6 ONNX Runtime has no kernel for the usual forms; from 9 on there is Where, from 10 on ThresholdedRelu.
FIXED = {6: "Log", 7: "Mul", 8: "Mul", 9: "Where", 10: "ThresholdedRelu", 17: "ThresholdedRelu"}
VARIABLE = {7: "Mul", 8: "Mul", 9: "Where", 10: "Where", 17: "Where"}


@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("opset", [*FIXED, 11, 12, 13, 21])
def test_a_fixed_kappa_is_written_in_standard_operators_of_every_opset(opset: int, cap: float | None) -> None:
    graph = model(opset, marker())
    nodes = written(graph, 0, site(cap), source(), fused=False)
    if opset in FIXED:
        assert FIXED[opset] in steps(nodes)
    assert not any(node.domain for node in nodes)
    assert [entry.domain for entry in graph.opset_import] == ["", "com.microsoft"]
    np.testing.assert_array_equal(run(graph, source(), x=Z), jump_relu(Z, KAPPA, cap))


@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("opset", [*VARIABLE, 11])
def test_a_kappa_of_a_graph_input_is_read_at_run_time(opset: int, cap: float | None) -> None:
    graph = model(opset, marker())
    nodes = written(graph, 0, site(cap), from_input(), fused=False)
    if opset in VARIABLE:
        assert VARIABLE[opset] in steps(nodes)
    np.testing.assert_array_equal(run(graph, source(), x=Z), jump_relu(Z, KAPPA, cap))
    again = run(graph, source(), x=Z, kappa=np.array(1.0, dtype=np.float32))
    np.testing.assert_array_equal(again, jump_relu(Z, 1.0, cap))


@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("come", [source(has_library=True), "input"], ids=["fixed", "input"])
def test_with_the_library_a_jump_is_one_node(library: None, come: Any, cap: float | None) -> None:
    come = come if come != "input" else KappaSource(**{**vars(from_input()), "has_library": True})
    graph = model(17, marker())
    assert steps(written(graph, 0, site(cap), come, fused=False)) == ["JumpRelu"]
    assert [(entry.domain, entry.version) for entry in graph.opset_import].count(("jr_onnx", 1)) == 1
    np.testing.assert_array_equal(run(graph, come, x=Z), jump_relu(Z, KAPPA, cap))


def test_the_domain_of_the_library_is_imported_once(library: None) -> None:
    graph = model(17, marker())
    graph.opset_import.append(helper.make_opsetid("jr_onnx", 1))
    written(graph, 0, site(), source(has_library=True), fused=False)
    assert [entry.domain for entry in graph.opset_import] == ["", "com.microsoft", "jr_onnx"]


def test_every_site_that_draws_for_itself_has_a_draw_in_its_range() -> None:
    own = RandomKappa(0.5, 0.75, per="site", source="graph")
    graph = model(12, marker())
    assert steps(written(graph, 0, site(), source(own=own), fused=False))[:2] == ["RandomUniform", "Squeeze"]
    z = np.concatenate([[[0.5, 0.75]], np.linspace(0.5, 0.75, 98)[None]], axis=1).astype(np.float32)
    del graph.graph.input[:]
    graph.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, z.shape))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    passed = [int(np.sum(session.run(None, {"x": z})[0] > 0)) for _ in range(30)]
    assert all(1 <= count < 100 for count in passed), "0.5 never passes, and 0.75 always does"
    assert len(set(passed)) > 1  # 30 draws among 98 steps


def test_a_kappa_that_is_drawn_in_the_graph_reaches_the_library_as_a_scalar() -> None:
    own = RandomKappa(0.5, 0.75, per="site", source="graph")
    draw, scalar, jump = written(model(12, marker()), 0, site(), source(own=own, has_library=True), fused=False)
    assert (draw.op_type, scalar.op_type, jump.op_type) == ("RandomUniform", "Squeeze", "JumpRelu")
    assert (list(scalar.input), list(jump.input)) == (list(draw.output), ["x", *scalar.output])


def test_a_site_that_draws_by_the_library_has_the_range_on_its_node() -> None:
    own = RandomKappa(0.5, 0.75, per="site", source="op")
    (jump,) = written(model(17, marker()), 0, site(6.0), source(own=own, has_library=True), fused=False)
    found = {item.name: helper.get_attribute_value(item) for item in jump.attribute}
    assert found == {"kappa_low": 0.5, "kappa_high": 0.75, "cap": 6.0}


def gemm(bias: bool = True, **attributes: Any) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    node = helper.make_node(
        "FusedGemm", ["x", "w", "b"] if bias else ["x", "w"], ["y"], name="fc", domain="com.microsoft", alpha=2.0,
        activation="HardSigmoid", activation_alpha=2.0, activation_beta=-7.5, **attributes,
    )  # fmt: skip
    weights = {"w": np.array([[1.0, -1.0, 0.5], [0.25, 2.0, 1.0]], dtype=np.float32)}
    return node, {**weights, "b": np.array([0.5, -0.5, 0.0], dtype=np.float32)} if bias else weights


X = np.array([[0.25, 1.0], [-1.0, 0.5], [0.125, 0.0], [4.0, 3.0]], dtype=np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("way", ["standard", "input", "library"])
def test_a_gemm_gives_its_activation_to_the_jump(
    request: pytest.FixtureRequest, way: str, cap: float | None, bias: bool
) -> None:
    if way == "library":
        request.getfixturevalue("library")
    come = {"standard": source(), "input": from_input(), "library": source(has_library=True)}[way]
    node, tensors = gemm(bias)
    graph = model(17, node, tensors=tensors, x=X.shape)
    nodes = written(graph, 0, site(cap), come, fused=True)
    host = next(node for node in nodes if "Gemm" in node.op_type)
    activation = [helper.get_attribute_value(item) for item in host.attribute if item.name == "activation"]
    if way == "standard" and cap is None:
        assert (len(nodes), activation) == (1, [b"ThresholdedRelu"])
    elif bias:
        assert (host.op_type, host.domain, activation) == ("Gemm", "", [])
    else:
        assert (host.op_type, host.domain, activation) == ("FusedGemm", "com.microsoft", [b"Relu"])
    assert not any(item.name in ("activation_beta", "activation_params") for item in host.attribute)
    z = 2 * X @ tensors["w"] + tensors.get("b", np.float32(0))  # multiples of 1/16 below 2**8: exact
    np.testing.assert_array_equal(run(graph, come, x=X), jump_relu(z, KAPPA, cap))


@pytest.mark.parametrize("own", [RandomKappa(0.5, 0.75, per="site", source="graph"), None])
def test_a_fused_activation_has_no_room_for_a_kappa_that_changes(own: RandomKappa | None) -> None:
    node, tensors = gemm()
    come = source(own=own) if own is not None else from_input()
    assert "ThresholdedRelu" not in str(written(model(17, node, tensors=tensors), 0, site(), come, fused=True))


def conv(op_type: str, domain: str) -> onnx.NodeProto:
    return helper.make_node(
        op_type, ["x", "w"], ["y"], name="conv", domain=domain, activation="HardSigmoid", activation_params=[2.0, -7.5]
    )


def test_a_fused_convolution_keeps_a_relu_in_front_of_the_jump() -> None:
    weight = np.array([[[[1.0]]], [[[-2.0]]]], dtype=np.float32)
    x = np.array([-1.0, 0.25, 0.5, 0.75], dtype=np.float32).reshape(1, 1, 2, 2)
    graph = model(17, conv("FusedConv", "com.microsoft"), tensors={"w": weight}, x=x.shape)
    assert steps(written(graph, 0, site(), source(), fused=True)) == ["FusedConv", "ThresholdedRelu"]
    z = np.concatenate([x, -2 * x], axis=1)
    np.testing.assert_array_equal(run(graph, source(), x=x), jump_relu(z, KAPPA))


def test_a_convolution_in_the_blocked_layout_does_without_activation() -> None:
    """Its weights are reordered, so it is not run here; tests/runtime/test_optimizer.py runs such networks."""
    host, jump = written(model(17, conv("Conv", "com.microsoft.nchwc")), 0, site(), source(), fused=True)
    assert (host.op_type, host.domain, list(host.attribute)) == ("Conv", "com.microsoft.nchwc", [])
    assert (jump.op_type, list(jump.input), list(jump.output)) == ("ThresholdedRelu", list(host.output), ["y"])
    host, _ = written(model(17, conv("Conv", "another")), 0, site(), source(), fused=True)
    assert [helper.get_attribute_value(item) for item in host.attribute] == [b"Relu"]


IMAGE = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4) / 8


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("way", ["fixed", "input"])
def test_a_jump_takes_bias_and_residual_along(library: None, bias: bool, residual: bool, axis: int, way: str) -> None:
    """Conv, perhaps Transpose to (N, H, W, C), perhaps Add: BiasJumpRelu must give the same sums, then the jump."""
    weight, shift = np.array([1.0, -1.0, 2.0], dtype=np.float32), np.array([0.25, 0.5, -0.25], dtype=np.float32)
    z = weight.reshape(1, 3, 1, 1) * IMAGE + (shift.reshape(1, 3, 1, 1) if bias else np.float32(0))
    z = z.transpose(0, 2, 3, 1) if axis == 3 else z
    other = np.linspace(-1, 1, z.size).round(3).astype(np.float32).reshape(z.shape)
    nodes = [helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["c"], name="conv")]
    if axis == 3:
        nodes.append(helper.make_node("Transpose", ["c"], ["t"], name="t", perm=[0, 2, 3, 1]))
    last = str(nodes[-1].output[0])
    if residual:
        nodes.append(helper.make_node("Add", [last, "r"], ["s"], name="add"))
    nodes.append(helper.make_node("HardSigmoid", [str(nodes[-1].output[0])], ["y"], name="act"))
    tensors = {"w": weight.reshape(3, 1, 1, 1), "r": other, "b": shift}
    graph = model(17, *nodes, tensors=tensors, x=IMAGE.shape)
    tail = Tail(
        convolution=0,
        add=len(nodes) - 2 if residual else None,
        operand=last,
        bias="b" if bias else "",
        residual="r" if residual else "",
        channels=0 if bias else 3,
        axis=axis,
    )
    come = KappaSource(**{**vars(from_input() if way == "input" else source()), "has_library": True})
    result = written(graph, len(nodes) - 1, site(6.0), come, fused=False, tail=tail)
    assert "Add" not in steps(result)
    assert len(result[0].input) == 2
    assert result[-1].op_type == "BiasJumpRelu"
    assert ("axis" in {item.name for item in result[-1].attribute}) == (axis == 3)
    expected = jump_relu(z + other if residual else z, KAPPA, 6.0)
    np.testing.assert_array_equal(run(graph, come, x=IMAGE), expected)
    if way == "input":
        again = run(graph, come, x=IMAGE, kappa=np.array(0.125, dtype=np.float32))
        np.testing.assert_array_equal(again, jump_relu(z + other if residual else z, 0.125, 6.0))


def test_only_the_markers_are_replaced_and_each_by_a_jump_of_its_own_site() -> None:
    nodes = [
        helper.make_node("HardSigmoid", ["x"], ["a"], name="one"),
        helper.make_node("Neg", ["a"], ["n"], name="neg"),
        helper.make_node("HardSigmoid", ["n"], ["h"], name="own"),  # the model's own
        helper.make_node("Sub", ["x", "h"], ["s"], name="sub"),
        helper.make_node("HardSigmoid", ["s"], ["y"], name="two"),
    ]
    graph = model(17, *nodes)
    scope = main_scope(graph)
    write_jumps(graph, [Found(scope, 0, site(), False), Found(scope, 4, site(4.0, 1.0), False)], source(), {})
    h = np.clip(0.2 * -jump_relu(Z, KAPPA) + np.float32(0.5), 0, 1, dtype=np.float32)
    np.testing.assert_allclose(run(graph, source(), x=Z), jump_relu(Z - h, 1.0, 4.0), rtol=1e-6)  # two roundings


def test_a_name_that_the_optimiser_took_ends_the_attempt() -> None:
    graph = model(17, marker(), tensors={"kappa": np.float32([1.0])})
    with pytest.raises(NotFollowedError, match="the name 'kappa', which the retrofit added"):
        written(graph, 0, site(), from_input(), fused=False)
    draw = helper.make_node("RandomUniform", [], ["x"], shape=[1])
    with pytest.raises(NotFollowedError, match="the name 'x', which the retrofit added"):
        written(model(17, marker()), 0, site(), source(nodes=(draw,)), fused=False)


def record(plan: KappaPlan, **undo: Any) -> Provenance:
    return Provenance("1", "", "", plan, "portable", (), Undo(8, (), **undo))


def test_what_a_retrofit_added_is_copied_and_nothing_else() -> None:
    graph = model(17, helper.make_node("RandomUniform", [], ["v"], shape=[1]), marker(), tensors={"w": X, "k": Z})
    graph.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, []))
    plan = KappaPlan.of(RandomKappa(0.1, 0.2, source="graph"))
    undo = {"inputs_added": ("k",), "initializers_added": ("k",), "nodes_prepended": 1}
    found = kappa_source(graph, record(plan, **undo), has_library=False)
    assert [value.name for value in found.inputs] == ["k"]
    assert [item.name for item in found.initializers] == ["k"]
    assert [node.op_type for node in found.nodes] == ["RandomUniform"]
    assert (found.own, found.has_library, found.runtime) == (None, False, "v")
    graph.graph.node[0].output[0] = "changed"
    assert found.runtime == "v"


def test_where_kappa_is_read_from() -> None:
    assert source().runtime is None
    assert from_input().runtime == "kappa"
    fixed = kappa_source(model(17, marker()), record(KappaPlan(0.1)), has_library=True)
    assert fixed == source(has_library=True)
    random = RandomKappa(0.1, 0.2, per="site", source="graph")
    assert kappa_source(model(17, marker()), record(KappaPlan.of(random)), has_library=False).own == random


@pytest.mark.parametrize("per", ["network", "site"])
def test_a_kappa_that_the_library_draws_needs_the_library(per: Any) -> None:
    plan = KappaPlan.of(RandomKappa(0.1, 0.2, per=per, source="op"))
    with pytest.raises(NotFollowedError, match="drawn by the op library, which is not there"):
        kappa_source(model(17, marker()), record(plan), has_library=False)
    found = kappa_source(model(17, marker()), record(plan), has_library=True)
    assert (found.own is not None) == (per == "site")


def test_one_draw_for_the_whole_network_stands_in_front_of_all_that_reads_it() -> None:
    draw = [
        helper.make_node("RandomUniform", [], ["vector"], name="draw", low=0.5, high=0.75, shape=[1]),
        helper.make_node("Squeeze", ["vector"], ["kappa"], name="scalar"),
    ]
    nodes = [
        helper.make_node("Neg", ["x"], ["n"], name="neg"),
        helper.make_node("HardSigmoid", ["n"], ["y"], name="act"),
    ]
    graph = model(12, *nodes)
    result = written(graph, 1, site(), source(nodes=tuple(draw)), fused=False)
    assert [node.name for node in result[:3]] == ["draw", "scalar", "neg"]
    z = np.where((-Z > 0.5) & (-Z < 0.75), np.float32(1), Z)  # whatever is drawn decides alike
    np.testing.assert_array_equal(run(graph, source(), x=z), jump_relu(-z, KAPPA))
