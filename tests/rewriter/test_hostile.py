"""Models that are built to hurt: recursion, explosion, depth, names that are no text, tampered provenance."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
import pytest
from onnx import helper, parser

from jr_onnx import provenance
from jr_onnx.errors import JrError, ModelError
from jr_onnx.rewriter import find_sites, restore, rewrite
from jr_onnx.rewriter.expansion import expanded_size
from jr_onnx.rewriter.scopes import top_scopes


def chain(bodies: list[str]) -> onnx.ModelProto:
    """Return a model that calls p.f0; body i is the text of function fi."""
    text = '<ir_version: 8, opset_import: ["" : 17, "p" : 1]>\ng (float[N] x) => (float[N] y) { y = p.f0(x) }\n'
    for number, body in enumerate(bodies):
        text += f'<domain: "p", opset_import: ["" : 17, "p" : 1]>\nf{number} (a) => (b) {{ {body} }}\n'
    return parser.parse_model(text)


def test_a_function_that_calls_itself_is_named() -> None:
    with pytest.raises(ModelError, match="calls itself, which ONNX forbids: p::f0 -> p::f0"):
        find_sites(chain(["b = p.f0(a)"]))


def test_functions_that_call_each_other_in_a_circle_are_named() -> None:
    model = chain(["b = p.f1(a)", "c = Relu(a) b = p.f2(c)", "b = p.f1(a)"])
    with pytest.raises(ModelError, match="forbids: p::f1 -> p::f2 -> p::f1"):
        rewrite(model, 0.1)


def test_a_circle_that_nothing_calls_does_no_harm() -> None:
    model = chain(["b = Relu(a)", "b = p.f2(a)", "b = p.f1(a)"])
    assert [site.id for site in find_sites(model).sites] == ["fn:p::f0/b"]


def test_functions_that_double_forty_times_are_refused_at_once() -> None:
    model = chain([f"c = p.f{number + 1}(a) b = p.f{number + 1}(c)" for number in range(40)] + ["b = Relu(a)"])
    with pytest.raises(ModelError, match="expand to 3298534883327 nodes, more than can be followed"):
        find_sites(model)


def test_the_expanded_size_counts_sub_graphs_and_calls() -> None:
    model = chain(["c = p.f1(a) b = p.f1(c)", "c = Neg(a) b = Relu(c)"])
    assert expanded_size(top_scopes(model)) == 1 + 2 + 2 * 2


def test_a_long_chain_of_calls_is_followed_to_its_end() -> None:
    model = chain([f"b = p.f{number + 1}(a)" for number in range(80)] + ["b = Relu(a)"])
    assert [site.id for site in find_sites(model).sites] == ["fn:p::f80/b"]


def test_a_chain_beyond_the_stack_is_refused_in_one_line() -> None:
    model = chain([f"b = p.f{number + 1}(a)" for number in range(3000)] + ["b = Relu(a)"])
    with pytest.raises(ModelError, match="nested too deeply"):
        find_sites(model)


def nested(levels: int) -> onnx.ModelProto:
    inner = parser.parse_graph("g () => (float[N] o) { [relu] o = Relu(x) }")
    for level in range(levels):
        outer = parser.parse_graph(f"g{level} () => (float[N] o{level}) {{ }}")
        node = helper.make_node("If", ["c"], [f"o{level}"], name="n")
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(inner)
        outer.node.append(node)
        inner = outer
    inner.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"]))
    inner.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_sub_graphs_thirty_levels_deep_are_rewritten_and_restored() -> None:
    model = nested(30)
    output, result = rewrite(model, 0.1)
    assert [site.id.count("then_branch") for site in result.sites] == [30]
    assert restore(output) == model


def test_sub_graphs_beyond_the_stack_are_refused_in_one_line(tmp_path: Any) -> None:
    body = b"\x4a" + _varint(40_000) + b"z" * 40_000  # TensorProto.raw_data
    for _ in range(2000):  # graph.node.attribute.g
        for number in (6, 5, 1):
            length = len(body)
            body = bytes([number << 3 | 2]) + _varint(length) + body
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x3a" + _varint(len(body)) + body)
    with pytest.raises(ModelError, match="nested too deeply"):
        rewrite(path, 0.1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def simple() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[N] xxxx) => (float[N] y) { [relu] h = Relu(xxxx) y = Neg(h) }"
    )


@pytest.mark.parametrize("old", [b"xxxx", b"relu"])
def test_a_name_that_is_no_text_is_shown(old: bytes, tmp_path: Any) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(simple().SerializeToString().replace(old, b"\xff\xfe\xfd\xfc"))
    for work in (lambda: find_sites(path), lambda: rewrite(path, 0.1), lambda: restore(path)):
        with pytest.raises(ModelError, match=r"not UTF-8 text|no jr-onnx provenance"):
            work()


def tampered(**changes: Any) -> onnx.ModelProto:
    output, _ = rewrite(simple(), 0.1, lowering="where")
    record = provenance.read(output)
    assert record is not None
    (site,) = record.sites
    for name, value in changes.items():
        if hasattr(record.undo, name):
            record = dataclasses.replace(record, undo=dataclasses.replace(record.undo, **{name: value}))
        else:
            record = dataclasses.replace(record, sites=(dataclasses.replace(site, **{name: value}),))
    provenance.remove(output)
    provenance.write(output, record)
    return output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "is not where the rewrite left it"),
        ({"nodes": -3}, "is not where the rewrite left it"),
        ({"nodes": 10**9}, "is not where the rewrite left it"),
        ({"output": "elsewhere"}, "is not where the rewrite left it"),
        ({"scope": "If_3.then_branch"}, "no longer has the scope 'If_3.then_branch'"),
        ({"original": "%%%"}, "holds a damaged NodeProto"),
        ({"original": "AAAA"}, "holds a damaged NodeProto"),
        ({"nodes_prepended": -1}, "-1 nodes should stand in front of the graph"),
        ({"nodes_prepended": 99}, "99 nodes should stand in front of the graph"),
        ({"initializers_added": ("nowhere",)}, "'nowhere', which the rewrite added, is gone"),
        ({"inputs_added": ("nowhere",)}, "'nowhere', which the rewrite added, is gone"),
        ({"calls": (("", -1, ""),)}, "call -1 in scope ''"),
        ({"calls": (("", 7, ""),)}, "call 7 in scope ''"),
        ({"calls": (("fn:x", 0, ""),)}, "call 0 in scope 'fn:x'"),
        ({"opset_import": ("////",)}, "holds a damaged OperatorSetIdProto"),
        ({"inputs_removed": ((0, "////"),)}, "holds a damaged ValueInfoProto"),
        ({"ir_version": -1}, "gives the IR version -1, which does not exist"),
        ({"ir_version": 10**400}, "found an integer of 1329 bits"),
        ({"inputs_removed": ((1 << 63, ""),)}, "found an integer of 64 bits"),
        ({"functions_added": ("gone::f",)}, "the function 'gone::f', which the rewrite added, is gone"),
    ],
)
def test_tampered_provenance_does_not_restore(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        restore(tampered(**changes))


def test_a_damaged_undo_is_no_internal_error_for_a_second_retrofit() -> None:
    with pytest.raises(JrError) as caught:
        rewrite(tampered(nodes=77), 0.2, replace=True)
    assert caught.value.exit_code == 2


def test_two_nodes_that_yield_one_name_are_refused() -> None:
    model = simple()
    model.graph.node.insert(1, model.graph.node[0])
    with pytest.raises(ModelError, match=r"several nodes of the main graph yield 'h', ONNX wants each name once"):
        rewrite(model, 0.1)


@pytest.mark.parametrize("version", [2**31, 2**62, -1, 99])
def test_an_opset_that_does_not_exist_is_no_internal_error(version: int) -> None:
    model = simple()
    model.opset_import[0].version = version
    assert len(find_sites(model).sites) == (version > 0)
    for options in ({}, {"lowering": "custom"}, {"opset": 17}):
        try:
            rewrite(model, 0.1, **options)
        except JrError as error:
            assert error.exit_code in (2, 3, 4)  # noqa: PT017 - an answer and a refusal are both welcome


def test_an_element_type_that_does_not_exist_is_named_by_its_number() -> None:
    model = simple()
    model.graph.input[0].type.tensor_type.elem_type = 999
    (refusal,) = find_sites(model).refusals
    assert "its element type is 999" in refusal.reason


@pytest.mark.parametrize("lowering", ["where", "custom"])
def test_a_model_without_an_ir_version_comes_back_without_one(lowering: str) -> None:
    model = simple()
    model.ClearField("ir_version")
    output, _ = rewrite(model, 0.1, lowering=lowering)
    assert restore(output).SerializeToString() == model.SerializeToString()


def test_a_bound_that_is_an_identity_of_nothing_is_not_constant() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[N] x) => (float[N] y) { low = Identity() [odd] y = Clip(x, low) }"
    )
    (refusal,) = find_sites(model).refusals
    assert "'low' is computed by Identity" in refusal.reason


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Relu", ["x"], []),
        helper.make_node("Relu", [], ["y"]),
        helper.make_node("Relu", ["x"], [""]),
        helper.make_node("Max", ["", "zero"], ["y"]),
        helper.make_node("Max", ["x", "zero"], []),
        helper.make_node("Clip", [], ["y"]),
        helper.make_node("FusedConv", ["x"], [], domain="com.microsoft", activation="Relu"),
        helper.make_node("FusedGemm", [], ["y"], domain="com.microsoft", activation="Relu"),
    ],
)
def test_a_relu_that_lacks_its_input_or_output_is_refused(node: onnx.NodeProto) -> None:
    model = simple()
    model.graph.node[0].CopyFrom(node)
    model.graph.initializer.append(helper.make_tensor("zero", onnx.TensorProto.FLOAT, [], [0.0]))
    table = find_sites(model)
    assert not table.sites
    assert len(table.refusals) == 1


def test_an_expansion_is_bounded_before_a_conversion() -> None:
    model = chain([f"c = p.f{number + 1}(a) b = p.f{number + 1}(c)" for number in range(40)] + ["b = Relu(a)"])
    with pytest.raises(ModelError, match="expand to 3298534883327 nodes, more than can be followed"):
        rewrite(model, 0.1, opset=18)


@pytest.mark.parametrize("raised", [onnx.shape_inference.InferenceError, onnx.checker.ValidationError, KeyError])
def test_whatever_the_converter_raises_is_one_line(raised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise raised("the shapes\ndiffer")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ModelError, match=r"cannot convert this model from opset 17 to 18: '?the shapes.*differ"):
        rewrite(simple(), 0.1, opset=18)


@pytest.mark.parametrize("kind", [-(2**31), 999, 0])
def test_a_constant_of_no_type_is_not_constant(kind: int) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) { h = Relu(x) y = Max(h, zero) }'
    )
    model.graph.initializer.add(name="zero", data_type=kind, raw_data=bytes(4))
    assert len(find_sites(model).sites) == 1
    rewrite(model, 0.1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.opset_import[0],
        lambda m: m.metadata_props.add(key="k", value="zzzz"),
        lambda m: m.graph.initializer.add(name="w", data_type=1, dims=[1], data_location=1).external_data.add(
            key="location", value="zzzz"
        ),
        lambda m: m.graph.node[0].attribute.add(name="zzzz", type=2, i=1),
        lambda m: m.graph.value_info.add(name="zzzz"),
    ],
)
def test_any_text_that_is_none_is_named(spoil: Any, tmp_path: Any) -> None:
    model = simple()
    item = spoil(model)
    if isinstance(item, onnx.OperatorSetIdProto):
        item.domain = "zzzz"
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString().replace(b"zzzz", b"\xff\xfe\xfd\xfc"))
    for work in (lambda: find_sites(path), lambda: rewrite(path, 0.1), lambda: restore(path)):
        with pytest.raises(ModelError, match="not UTF-8 text"):
            work()
