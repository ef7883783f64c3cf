"""`--opset`: what onnx's converter loses or does not know is brought past it, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from jr_onnx.errors import JrError, ModelError, RefusalError
from jr_onnx.modelfile import from_proto, load
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.rewriter.convert import convert
from jr_onnx.verifier import prove_conversion

ort = pytest.importorskip("onnxruntime")
X = np.random.default_rng(3).normal(size=(2, 3, 2, 2)).astype(np.float32)


def run(model: Any, x: np.ndarray = X) -> np.ndarray:
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def jump(z: np.ndarray, kappa: float = 0.5) -> np.ndarray:
    return np.where(z > np.float32(kappa), z, np.float32(0))


WITH_FUNCTIONS = """<ir_version: 8, opset_import: ["" : 17, "p" : 1], metadata_props: ["author" : "me"]>
g (float[N,3,2,2] x) => (float[N,3,2,2] y) {
  [first] a = p.outer <k = 2.0>(x)
  c = Constant<value = bool {1}>()
  y = If(c) <then_branch = t () => (float[N,3,2,2] q) { q = p.inner(a) },
             else_branch = e () => (float[N,3,2,2] r) { r = Neg(a) }>
}
<domain: "p", opset_import: ["" : 16, "p" : 1]> outer <k>(u) => (v) {
  f = Constant<value_float: float = @k>() w = Mul(u, f) v = p.inner(w)
}
<domain: "p", opset_import: ["" : 17]> inner (u) => (v) { [act] v = Relu(u) }"""


def test_functions_are_inlined_and_said_to_be() -> None:
    model = parser.parse_model(WITH_FUNCTIONS)
    output, result = rewrite(model, 0.5, opset=18, prove=prove_conversion)
    assert not [function for function in output.functions if function.domain == "p"]
    assert "functions inlined, because onnx's converter drops them: p::outer, p::inner" in result.changes
    assert (result.proof or "").startswith("proved on ONNX Runtime: 4 random inputs")
    assert len(result.sites) == 2
    np.testing.assert_array_equal(run(output), jump(jump(2 * X)))
    assert output.metadata_props[0].key == "author"


def test_a_function_of_another_opset_is_named_where_its_operators_differ() -> None:
    older = WITH_FUNCTIONS.replace('["" : 16, "p" : 1]', '["" : 12, "p" : 1]')
    output, _ = rewrite(parser.parse_model(older), 0.5, opset=18, prove=prove_conversion)  # Mul of 12 is that of 17
    np.testing.assert_array_equal(run(output), jump(jump(2 * X)))
    axes = "w1 = Mul(u, f) w2 = Unsqueeze<axes = [0]>(w1) w = Squeeze<axes = [0]>(w2)"
    model = parser.parse_model(older.replace("w = Mul(u, f)", axes))
    said = r"function p::outer: it imports operator set 12, the model 17, and Unsqueeze"
    with pytest.raises(RefusalError, match=said) as caught:
        rewrite(model, 0.5, opset=18, prove=prove_conversion)
    assert "without --opset" in caught.value.hint
    rewrite(model, 0.5)


def old(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], opset: int = 6) -> onnx.ModelProto:
    """Return a model as of 2018: IR 3, initializers among the inputs."""
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    inputs = [helper.make_tensor_value_info(name, 1, list(value.shape)) for name, value in weights.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 3, 2, 2]), *inputs],
        [helper.make_tensor_value_info("y", 1, [2, 3, 2, 2])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


B = np.asarray([0.5, -1, 2], np.float32)
RELU = helper.make_node("Relu", ["h"], ["y"], name="relu")


@pytest.mark.parametrize("opset", [7, 12, 13, 18])
@pytest.mark.parametrize(
    ("node", "weights", "expected"),
    [
        (helper.make_node("Add", ["x", "b"], ["h"], broadcast=1, axis=1), {"b": B}, X + B[:, None, None]),
        (helper.make_node("Mul", ["x", "b"], ["h"], broadcast=1, axis=-3), {"b": B}, X * B[:, None, None]),
        (helper.make_node("Sub", ["x", "b"], ["h"], broadcast=1), {"b": B[:2]}, X - B[:2]),
        (helper.make_node("Add", ["x", "x"], ["h"], broadcast=0), {}, X + X),
        (helper.make_node("Div", ["x", "b"], ["h"], broadcast=1, axis=1), {"b": B.reshape(3, 1)}, X / B[:, None, None]),
        (helper.make_node("ImageScaler", ["x"], ["h"], scale=2.0, bias=[0.5, -1.0, 2.0]), {}, 2 * X + B[:, None, None]),
        (helper.make_node("ImageScaler", ["x"], ["h"], bias=[0.5, -1.0, 2.0]), {}, X + B[:, None, None]),
        (helper.make_node("ImageScaler", ["x"], ["h"], scale=2.0), {}, 2 * X),
        (helper.make_node("Add", ["x", "b"], ["h"], broadcast=1, axis=0), {"b": B[:2]}, X + B[:2, None, None, None]),
        (helper.make_node("Affine", ["x"], ["h"], alpha=2.0, beta=1.0), {}, 2 * X + 1),
        (helper.make_node("Affine", ["x"], ["h"]), {}, X),
        (helper.make_node("Scale", ["x"], ["h"]), {}, X),
        (helper.make_node("ScaledTanh", ["x"], ["h"]), {}, np.tanh(X)),
        (helper.make_node("ParametricSoftplus", ["x"], ["h"]), {}, np.logaddexp(X, 0)),
        (helper.make_node("ScaledTanh", ["x"], ["h"], alpha=2.0, beta=0.5), {}, 2 * np.tanh(0.5 * X)),
        (helper.make_node("ParametricSoftplus", ["x"], ["h"], alpha=2.0, beta=3.0), {}, 2 * np.logaddexp(3 * X, 0)),
    ],
    ids=lambda value: getattr(value, "op_type", None),
)  # fmt: skip
def test_what_the_converter_cannot_carry_is_carried(
    node: onnx.NodeProto, weights: dict[str, np.ndarray], expected: np.ndarray, opset: int
) -> None:
    output, result = rewrite(old([node, RELU], weights), 0.5, opset=opset, prove=prove_conversion)
    np.testing.assert_allclose(run(output), jump(expected), rtol=1e-6)
    assert f"carried past onnx's converter: {node.op_type}" in result.changes


@pytest.mark.parametrize(("opset", "between"), [(12, ["bias/aligned"]), (13, ["bias/axes", "bias/aligned"])])
def test_what_is_written_for_a_node_is_named_after_it(opset: int, between: list[str]) -> None:
    node = helper.make_node("Add", ["x", "b"], ["h"], name="bias", broadcast=1, axis=1)
    converted, _ = convert(from_proto(old([node, RELU], {"b": B})), opset)
    assert [item.name for item in converted.proto.graph.node] == [*between, "bias", "relu"]
    scaler = helper.make_node("ImageScaler", ["x"], ["h"], name="image", scale=2.0)
    converted, _ = convert(from_proto(old([scaler, RELU], {})), opset)
    assert [item.name for item in converted.proto.graph.node] == [
        "image/number_0", "image/part_0", "image/number_1", "image", "relu",
    ]  # fmt: skip
    scaler.name = ""
    converted, _ = convert(from_proto(old([scaler, RELU], {})), opset)
    assert converted.proto.graph.node[0].name == "h/number_0", "or after its result"


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("operator", "before"), [("Resize", 10), ("Upsample", 9)])
def test_pixels_stay_where_they_are_when_the_meaning_of_resize_changes(
    operator: str, before: int, mode: str, opset: int
) -> None:
    scales = {"s": np.asarray([1, 1, 1.5, 3], np.float32)}
    node = helper.make_node(operator, ["x", "s"], ["h"], mode=mode)
    model = old([node, helper.make_node("Relu", ["h"], ["y"])], scales, before)
    model.graph.output[0].type.tensor_type.shape.Clear()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [2, 3, 3, 6]))
    output, _ = rewrite(model, 0.0, opset=opset, prove=prove_conversion)
    np.testing.assert_allclose(run(output), run(model), rtol=0, atol=1e-6)


def test_old_dropout_and_softmax_are_proved_where_only_the_evaluator_runs_them() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("LRN", ["h"], ["l"], size=3, alpha=0.5),
        helper.make_node("Dropout", ["l"], ["d"], is_test=1),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    _, result = rewrite(old(nodes, {}), 0.5, opset=13, prove=prove_conversion)
    assert "reference evaluator" in (result.proof or "")


def test_weights_that_ir_3_wants_among_the_inputs_are_converted_without() -> None:
    model = old([helper.make_node("Mul", ["x", "w"], ["h"]), RELU], {"w": np.asarray(2, np.float32)}, 7)
    del model.graph.input[1]
    output, _ = rewrite(model, 0.5, opset=13, prove=prove_conversion)
    np.testing.assert_array_equal(run(output), jump(2 * X))


def test_a_lower_opset_is_refused_with_advice_that_holds() -> None:
    model = old([helper.make_node("Add", ["x", "x"], ["h"]), RELU], {}, 18)
    with pytest.raises(JrError) as caught:
        rewrite(model, 0.5, opset=13, prove=prove_conversion)
    assert "at opset 13" in str(caught.value.hint)


def test_an_operator_that_nobody_knows_is_named() -> None:
    model = old([helper.make_node("DynamicSliceOfOld", ["x"], ["h"]), RELU], {})
    with pytest.raises(JrError, match="DynamicSliceOfOld"):
        rewrite(model, 0.5, opset=13, prove=prove_conversion)


def test_a_legacy_broadcast_of_unknown_rank_is_named() -> None:
    node = helper.make_node("Add", ["x", "b"], ["h"], name="bias", broadcast=1, axis=1)
    model = old([node, RELU], {"b": B})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(RefusalError, match=r"Add 'bias' broadcasts along the axis 1, as before opset 7") as caught:
        convert(from_proto(model), 13)
    assert "infer_shapes" in caught.value.hint


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_are_neither_read_nor_changed(tmp_path: Path, external: bool) -> None:
    weights = np.random.default_rng(1).normal(size=(200, 100)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 200])],
        [helper.make_tensor_value_info("y", 1, ["N", 100])],
        [numpy_helper.from_array(weights, "w")],
    )
    graph.quantization_annotation.add(tensor_name="w")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path, output = tmp_path / "net.onnx", tmp_path / "out" / "net.onnx"
    output.parent.mkdir()
    onnx.save_model(model, path, save_as_external_data=external, location="net.data")
    source = load(path)
    converted, _ = convert(source, 18)
    assert converted.payloads is source.payloads
    assert converted.length_bytes - source.length_bytes < 1000
    _, result = rewrite(path, 0.5, opset=18, output=output, prove=prove_conversion)
    assert (output.with_name("net.data").exists(), result.external_data != "none") == (external, external)
    written = onnx.load(output)
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]), weights)
    assert len(written.graph.quantization_annotation) == 1
    x = np.random.default_rng(2).normal(size=(5, 200)).astype(np.float32)
    np.testing.assert_array_equal(run(output, x), jump(run(path, x)))


def test_a_quantised_model_and_overridable_initializers_go_along() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 13]>
g (float[N,3,2,2] x, float b) => (float[N,3,2,2] y)
<float s = {0.1}, int8 z = {3}, float b = {0.25}> {
  q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) h = Add(d, b) y = Relu(h)
}""")
    output, result = rewrite(model, 0.5, opset=19, prove=prove_conversion)
    assert [value.name for value in output.graph.input] == ["x", "b"]
    assert (result.proof or "").startswith("proved on ONNX Runtime: 5 random inputs")
    np.testing.assert_array_equal(run(output), jump(run(model)))


def test_a_conversion_without_a_proof_is_refused_in_python() -> None:
    with pytest.raises(RefusalError, match="has to be proved"):
        rewrite(parser.parse_model(WITH_FUNCTIONS), 0.5, opset=18)


def test_the_opset_that_the_model_has_is_no_conversion() -> None:
    model = parser.parse_model(WITH_FUNCTIONS)
    output, result = rewrite(model, 0.5, opset=17)
    assert len(output.functions) == 2
    assert not result.changes


@pytest.mark.parametrize("opset", [6, 99])
def test_an_opset_that_cannot_be_is_said(opset: int) -> None:
    with pytest.raises(ModelError, match=f"--opset is {opset}, expected 7 to"):
        convert(from_proto(old([RELU], {})), opset)


def test_sites_keep_their_names_where_nothing_is_inlined() -> None:
    model = old([helper.make_node("Neg", ["x"], ["h"]), RELU], {})
    converted, _ = convert(from_proto(model), 13)
    assert [site.id for site in find_sites(converted.proto).sites] == ["relu"]


def test_a_model_from_before_operator_sets_had_versions_gets_an_ir_that_names_them() -> None:
    model = old([helper.make_node("Neg", ["x"], ["h"]), RELU], {}, opset=2)
    model.ir_version = 2
    converted, lines = convert(from_proto(model), 13)
    assert "IR version 2 -> 3" in lines
    onnx.checker.check_model(converted.proto)
