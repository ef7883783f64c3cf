"""The contract sees what it should: every kind of damage between rewriting and checking is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from jr_onnx import provenance
from jr_onnx.errors import ContractError, ModelError
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.rewriter.contract import check, ensure
from jr_onnx.rewriter.sites import Site, locate

TEXT = """<ir_version: 10, opset_import: ["" : 17, "pkg" : 1], producer_name: "someone", doc_string: "a model">
g (float[N] x, bool c) => (float[N] y, float[N] z) <float[N] h> {
  [first] h = Relu(x)
  [scale] s = Mul(h, w)
  [second] z = Relu(s)
  [pick] i = If (c) <
    then_branch = yes () => (float[N] o) { [inner] o = Relu(s) },
    else_branch = no () => (float[N] p) { [other] p = Clip(s, low, high) }
  >
  [call] y = pkg.act(i)
}
<domain: "pkg", opset_import: ["" : 17]>
act (q) => (r) { [body] r = Relu(q) }
"""


def short_weight() -> onnx.TensorProto:
    return onnx.TensorProto(name="short", dims=[7], data_type=onnx.TensorProto.FLOAT, raw_data=bytes(3))


def checks_lengths() -> bool:
    try:
        onnx.checker.check_tensor(short_weight())
    except onnx.checker.ValidationError:
        return True
    return False


needs_lengths = pytest.mark.skipif(
    not checks_lengths(),
    reason=f"the checker of onnx {onnx.__version__} does not compare a weight's length with its shape",
)


def source() -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    for name, value in (("w", [1.5]), ("low", 0.0), ("high", 6.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    model.metadata_props.add(key="author", value="someone")
    model.graph.quantization_annotation.add(tensor_name="h")
    model.graph.node[1].doc_string = "scales"
    model.graph.node[1].metadata_props.add(key="layer", value="1")
    model.graph.node[0].MergeFromString(b"\xa2\x3f\x05extra")
    model.MergeFromString(b"\xa2\x3f\x05extra")
    return model


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def drop_unknown(model: onnx.ModelProto) -> None:
    model.DiscardUnknownFields()


def swap(items: object) -> None:
    one, other = type(items[0])(), type(items[1])()  # type: ignore[index]
    one.CopyFrom(items[0])  # type: ignore[index]
    other.CopyFrom(items[1])  # type: ignore[index]
    items[0].CopyFrom(other)  # type: ignore[index]
    items[1].CopyFrom(one)  # type: ignore[index]


def change(part: object, name: str, value: object) -> None:
    setattr(part, name, value)


def swap_inputs(item: onnx.NodeProto) -> None:
    item.input[:] = list(item.input)[::-1]


def move_last_first(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[-1], *nodes[:-1]])


Damage = Callable[[onnx.ModelProto], object]
DAMAGES: dict[str, Damage] = {
    "a weight": lambda m: change(m.graph.initializer[0], "raw_data", np.float32(1.25).tobytes()),
    "the shape of a weight": lambda m: m.graph.initializer[0].dims.append(1),
    "the name of a weight": lambda m: change(m.graph.initializer[0], "name", "v"),
    "the order of weights": lambda m: swap(m.graph.initializer),
    "a new weight": lambda m: m.graph.initializer.add(name="new"),
    "the name of a node": lambda m: change(node(m, "scale"), "name", "scale2"),
    "the operator of a node": lambda m: change(node(m, "scale"), "op_type", "Add"),
    "the inputs of a node": lambda m: swap_inputs(node(m, "scale")),
    "the domain of a node": lambda m: change(node(m, "scale"), "domain", "ai.onnx"),
    "a new attribute": lambda m: node(m, "scale").attribute.add(name="extra", i=1),
    "the doc string of a node": lambda m: change(node(m, "scale"), "doc_string", "new"),
    "the metadata of a node": lambda m: node(m, "scale").ClearField("metadata_props"),
    "a node that is gone": lambda m: m.graph.node.remove(node(m, "scale")),
    "a node too many": lambda m: m.graph.node.add(op_type="Neg", input=["x"], output=["unused"]),
    "the order of nodes": move_last_first,
    "the order of inputs": lambda m: swap(m.graph.input),
    "the order of outputs": lambda m: swap(m.graph.output),
    "the type of an input": lambda m: change(m.graph.input[0].type.tensor_type, "elem_type", 11),
    "a value info": lambda m: m.graph.ClearField("value_info"),
    "the metadata": lambda m: change(m.metadata_props[0], "value", "someone else"),
    "metadata that is gone": lambda m: m.metadata_props.pop(0),
    "the doc string": lambda m: change(m, "doc_string", ""),
    "the producer": lambda m: change(m, "producer_name", "jr-onnx"),
    "the name of the graph": lambda m: change(m.graph, "name", "g2"),
    "an annotation": lambda m: m.graph.ClearField("quantization_annotation"),
    "a node in a branch": lambda m: node(m, "pick").attribute[0].g.node.add(op_type="Neg"),
    "the name of a branch": lambda m: change(node(m, "pick").attribute[1].g, "name", "not"),
    "a function's name of an input": lambda m: m.functions[0].input.append("more"),
    "a function's body": lambda m: m.functions[0].node.add(op_type="Neg", input=["q"], output=["n"]),
    "a function's imports": lambda m: change(m.functions[0].opset_import[0], "version", 18),
    "a function that is gone": lambda m: m.functions.pop(0),
    "unknown fields": drop_unknown,
}


def retrofitted(lowering: str = "where") -> tuple[onnx.ModelProto, onnx.ModelProto, list[Site], set[str]]:
    model = source()
    found = [item.site for item in locate(model).located]
    output, result = rewrite(model, 0.06, lowering=lowering)
    return model, output, found, {row.id for row in result.sites}


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_an_untouched_rewrite_passes(lowering: str) -> None:
    model, output, found, rewritten = retrofitted(lowering)
    assert len(rewritten) == 5
    assert ensure(model, output, found, rewritten).problem is None


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_is_seen(what: str) -> None:
    model, output, found, rewritten = retrofitted()
    before = output.SerializeToString(deterministic=True)
    DAMAGES[what](output)
    assert output.SerializeToString(deterministic=True) != before
    with pytest.raises((ContractError, ModelError)) as caught:
        ensure(model, output, found, rewritten)
    assert "\n" not in str(caught.value)


def test_a_site_that_was_left_over_is_seen() -> None:
    model, output, found, rewritten = retrofitted()
    with pytest.raises(ContractError, match="site mismatch after the rewrite: main graph: z"):
        ensure(model, output, found, rewritten - {"second"})


def test_a_site_that_was_rewritten_on_the_side_is_seen() -> None:
    model = source()
    found = [item.site for item in locate(model).located]
    output, result = rewrite(model, 0.06, exclude=("second",))
    done = {row.id for row in result.sites}
    assert ensure(model, output, found, done).problem is None
    with pytest.raises(ContractError, match="site mismatch after the rewrite"):
        ensure(model, output, found, done | {"second"})


def test_a_result_that_the_checker_refuses_is_seen() -> None:
    model, output, found, rewritten = retrofitted()
    last = next(item for item in output.graph.node if item.op_type == "Where")
    last.attribute.add(name="no_such_attribute", i=1, type=onnx.AttributeProto.INT)
    with pytest.raises(
        ContractError, match=r"onnx.checker passed the source and fails the result: .*no_such_attribute"
    ):
        ensure(model, output, found, rewritten)


def test_a_source_that_the_checker_refuses_may_be_rewritten_and_says_so() -> None:
    model = source()
    node(model, "scale").attribute.add(name="no_such_attribute", i=1, type=onnx.AttributeProto.INT)
    _, result = rewrite(model, 0.06)
    assert result.checker_problem is not None
    assert "no_such_attribute" in result.checker_problem


def test_the_checker_is_shown_large_weights_and_external_data_as_small_ones() -> None:
    model = source()
    model.graph.initializer.append(
        onnx.TensorProto(name="far", dims=[7], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    )
    model.graph.initializer.append(onnx.TensorProto(name="token", dims=[10**6], data_type=1, raw_data=bytes(16)))
    assert check(model).problem is None


@needs_lengths
def test_a_broken_weight_is_the_checkers_to_find() -> None:
    model = source()
    model.graph.initializer.append(short_weight())
    assert check(model).problem is not None


def test_the_checkers_problem_is_one_line() -> None:
    model = helper.make_model(helper.make_graph([helper.make_node("NoSuchOperator", [], ["y"])], "g", [], []))
    problem = check(model).problem
    assert problem is not None
    assert "\n" not in problem


def test_the_provenance_itself_is_part_of_the_contract() -> None:
    model, output, found, rewritten = retrofitted()
    provenance.remove(output)
    with pytest.raises(ModelError, match="no jr-onnx provenance"):
        ensure(model, output, found, rewritten)


@pytest.mark.parametrize("site", ["bound", "last"])
@pytest.mark.parametrize("kappa", [0.0, 0.25])
def test_a_rewrite_may_make_an_activation_a_clamp(site: str, kappa: float) -> None:
    """What bounds [last] from above is Clip without a lower bound once [bound] is a JumpReLU."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (float[N] y) <float low = {0}, float high = {0.5}> {
      [first] h = Relu(x)
      [minus] m = Neg(h)
      [bound] b = Clip(m, low, high)
      [last] y = Relu(b)
    }""")
    output, result = rewrite(model, KappaPlan(by_site=((site, kappa),)))
    assert [row.id for row in result.sites] == [site]
    kinds = {item.site.id: item.is_aside for item in locate(output).located}
    assert kinds == ({"first": False, "last": True} if site == "bound" else {"first": False, "bound": False})
    back = restore(output)
    assert back.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_gates_and_clamps_are_part_of_the_contract() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (float[N] y) <float low = {0}, float high = {1}> {
      [pixels] p = Clip(x, low, high)
      [act] y = Relu(p)
    }""")
    found = [item.site for item in locate(model).located]
    assert [item.is_aside for item in locate(model).located] == [True, False]
    output, _ = rewrite(model, 0.06)
    assert ensure(model, output, found, {"act"}).problem is None
    with pytest.raises(ContractError, match="site mismatch after the rewrite: main graph: p"):
        ensure(model, output, found, {"act", "pixels"})


def with_a_function_of_an_unknown_operator(ir_version: int, body: str = "NoSuchOperator") -> onnx.ModelProto:
    """Nothing calls the function; the checker looks into functions from IR version 8 on."""
    text = """<ir_version: 7, opset_import: ["" : 17, "own" : 1]>
    g (float[N] x) => (float[N] y) { [act] y = Relu(x) }
    <domain: "own", opset_import: ["" : 17]> odd (a) => (b) { b = OPERATOR(a) }"""
    model = parser.parse_model(text.replace("OPERATOR", body))
    model.ir_version = ir_version
    return model


def test_a_problem_that_the_newer_ir_version_alone_brings_up_is_the_sources() -> None:
    """The custom operator raises IR version 7 to 8, where the checker refuses what it did not look at before."""
    model = with_a_function_of_an_unknown_operator(7)
    assert check(model).problem is None
    _, result = rewrite(model, 0.1, lowering="custom", target="cpu")
    assert "IR version 7 raised to 8" in result.changes
    assert "NoSuchOperator" in (result.checker_problem or "")
    _, result = rewrite(with_a_function_of_an_unknown_operator(7, "Neg"), 0.1, lowering="custom", target="cpu")
    assert result.checker_problem is None


@needs_lengths
@pytest.mark.parametrize(
    "data",
    [
        {"raw_data": bytes(16)},
        {"float_data": [0.0] * 4},
        {"double_data": [0.0] * 2, "data_type": onnx.TensorProto.DOUBLE},
    ],
    ids=["raw", "float", "double"],
)
def test_a_token_in_the_place_of_a_large_weight_is_none_of_the_checkers_business(data: dict[str, object]) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[64] x) => (float[64] y) { y = Neg(x) }'
    )
    fields = {"name": "w", "dims": [64], "data_type": onnx.TensorProto.FLOAT, **data}
    model.graph.initializer.append(onnx.TensorProto(**fields))
    assert check(model).problem is None
    model.graph.initializer[0].dims[:] = [63]  # too small for a token: its data is really missing
    assert check(model).problem is not None
