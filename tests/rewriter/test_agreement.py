"""A graph and its provenance agree after every rewrite, and no edit of either goes unseen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, parser

from jr_onnx import provenance
from jr_onnx.errors import JrError, KappaError, ModelError, RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.modelfile import load
from jr_onnx.modelfile.messages import pack
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.rewriter.agreement import Agreement, examine
from tests.rewriter.strategies import models
from tests.rewriter.test_properties import ALL_DTYPES, PROFILE, TARGETS, WISHES, rewritten

TEXT = """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
net (float[N, 4] x, float[N, 4] unused) => (float[N, 4] y)
<float[1] one = {1.0}, float low = {0.0}, float high = {6.0}> {
    a = Add (x, one)
    [first] r = Relu (a)
    b = Mul (r, one)
    [second] s = Clip (b, low, high)
    [call] t = pkg.block (s)
    y = Neg (t)
}
<domain: "pkg", opset_import: ["" : 17]>
block (u) => (w) {
    v = Abs (u)
    [inner] w = Relu (v)
}"""


def network() -> onnx.ModelProto:
    """Return three sites, one of them in a function."""
    model = parser.parse_model(TEXT)
    del model.graph.input[1]
    return model


def edited(model: onnx.ModelProto, change: Callable[[Provenance], Provenance]) -> onnx.ModelProto:
    """Return a copy whose provenance alone was changed."""
    record = provenance.read(model)
    assert record is not None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    provenance.remove(copy)
    provenance.write(copy, change(record))
    return copy


def with_site(record: Provenance, number: int, **fields: Any) -> Provenance:
    sites = list(record.sites)
    sites[number] = dataclasses.replace(sites[number], **fields)
    return dataclasses.replace(record, sites=tuple(sites))


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


PLANS = {
    "fixed": KappaPlan(kappa=0.25),
    "map": KappaPlan(kappa=0.25, by_site=(("first", 0.5),)),
    "input": KappaPlan(kappa=0.25, input_name="k"),
    "random input": KappaPlan.of(RandomKappa(0.1, 0.2)),
    "random op": KappaPlan.of(RandomKappa(0.1, 0.2, source="op")),
    "random graph": KappaPlan.of(RandomKappa(0.1, 0.2, source="graph")),
    "random op per site": KappaPlan.of(RandomKappa(0.1, 0.2, per="site", source="op")),
    "random graph per site": KappaPlan.of(RandomKappa(0.1, 0.2, per="site", source="graph")),
}


@pytest.mark.parametrize("lowering", ["auto", "where", "thresholded", "custom"])
@pytest.mark.parametrize("name", PLANS)
def test_every_kind_of_plan_agrees(name: str, lowering: str) -> None:
    try:
        model, _ = rewrite(network(), PLANS[name], lowering=lowering)
    except RefusalError:
        assert lowering in ("thresholded", "where")
        assert name not in ("fixed", "map")
        return
    found = examine(model)
    assert found, found.reason
    assert found.original is not None
    assert found.original.SerializeToString(deterministic=True) == network().SerializeToString(deterministic=True)


@settings(PROFILE)
@given(models(ALL_DTYPES), WISHES, TARGETS, st.sampled_from(sorted(set(PLANS) - {"map"})))
def test_every_rewrite_of_a_random_model_agrees(model: onnx.ModelProto, wish: str, target: str, name: str) -> None:
    try:
        output, _ = rewritten(model, PLANS[name], lowering=wish, target=target)
    except KappaError as error:
        assert "already has a value or node named" in error.message  # noqa: PT017
        assume(False)
    found = examine(output)
    assert found, found.reason


def test_a_model_that_is_no_retrofit_agrees() -> None:
    found = examine(network())
    assert found
    assert found.record is None


def test_large_weights_are_not_compared_and_come_back(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 200] x) => (float[N, 200] y) '
        "{ h = MatMul (x, w) y = Relu (h) }"
    )
    weights = np.random.default_rng(0).random((200, 200), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    written, _ = rewrite(path, 0.5)
    file = load(written)
    found = examine(file.proto, file.payloads)
    assert found
    assert found.payloads is file.payloads
    assert examine(onnx.load(written))


OTHER_OPERAND = pack(helper.make_node("Relu", ["x"], ["r"], name="first"))
NO_RELU = pack(helper.make_node("Sigmoid", ["a"], ["r"], name="first"))
TAMPERED_RECORDS: dict[str, Callable[[Provenance], Provenance]] = {
    "kappa of a site": lambda record: with_site(record, 0, kappa=5.0),
    "kappa everywhere": lambda record: dataclasses.replace(
        record,
        plan=KappaPlan(kappa=5.0),
        sites=tuple(dataclasses.replace(site, kappa=5.0) for site in record.sites),
    ),
    "kappa of the plan": lambda record: dataclasses.replace(record, plan=KappaPlan(kappa=5.0)),
    "a kappa that overflows": lambda record: with_site(record, 0, kappa=1e300),
    "a negative kappa": lambda record: with_site(record, 0, kappa=-1.0),
    "a range that nothing draws": lambda record: dataclasses.replace(record, plan=PLANS["random input"]),
    "cap": lambda record: with_site(record, 1, cap=3.0),
    "cap gone": lambda record: with_site(record, 1, cap=None),
    "lowering": lambda record: with_site(record, 0, lowering="where"),
    "a lowering that does not exist": lambda record: with_site(record, 0, lowering="fast"),
    "dtype": lambda record: with_site(record, 0, dtype="float16"),
    "form": lambda record: with_site(record, 0, form="clip"),
    "scope": lambda record: with_site(record, 0, scope="fn:pkg::block"),
    "scope that does not exist": lambda record: with_site(record, 0, scope="nowhere"),
    "output": lambda record: with_site(record, 0, output="b"),
    "output that does not exist": lambda record: with_site(record, 0, output="nothing"),
    "one node more": lambda record: with_site(record, 0, nodes=2),
    "no nodes": lambda record: with_site(record, 0, nodes=0),
    "an original that reads something else": lambda record: with_site(record, 0, original=OTHER_OPERAND),
    "an original that is not a ReLU": lambda record: with_site(record, 0, original=NO_RELU),
    "a damaged original": lambda record: with_site(record, 0, original="!"),
    "a site missing": lambda record: dataclasses.replace(record, sites=record.sites[1:]),
    "a site twice": lambda record: dataclasses.replace(record, sites=(*record.sites, record.sites[0])),
    "a site too many": lambda record: dataclasses.replace(
        record,
        sites=(*record.sites, dataclasses.replace(record.sites[0], id="y", output="y", nodes=1)),
    ),
    "another order": lambda record: dataclasses.replace(record, sites=record.sites[::-1]),
    "target": lambda record: dataclasses.replace(record, target="moon"),
    "a kappa input that is the image": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, inputs_added=("x",))
    ),
    "an initializer that was not added": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, initializers_added=("one",))
    ),
    "a node in front that is the model's": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, nodes_prepended=1)
    ),
    "a function that is the model's": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, functions_added=("pkg::block",))
    ),
    "another call": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, calls=(("", 4, pack(helper.make_node("Neg", ["s"], ["t"]))),))
    ),
    "another IR version": lambda record: dataclasses.replace(
        record, undo=dataclasses.replace(record.undo, ir_version=3)
    ),
}


@pytest.mark.parametrize("name", TAMPERED_RECORDS)
def test_a_changed_provenance_disagrees(name: str) -> None:
    model, _ = rewrite(network(), 0.25, lowering="thresholded")
    before = model.SerializeToString(deterministic=True)
    try:
        tampered = edited(model, TAMPERED_RECORDS[name])
        found = examine(tampered)
    except ModelError as error:
        # What no retrofit can have recorded is refused where it is read.
        assert "cannot be understood" in error.message or "kappa" in error.message  # noqa: PT017
        return
    assert model.SerializeToString(deterministic=True) == before
    assert not found, "the change went unseen"
    assert found.reason
    assert found.original is None
    with pytest.raises(JrError):
        restore(tampered)


def _alpha(model: onnx.ModelProto) -> None:
    node_of(model, "r").attribute[0].f = 0.5


def _constant(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Constant" and "kappa" in node.output[0])
    node.attribute[0].t.raw_data = np.float32(0.75).tobytes()


def _cap(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "high")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(9.0), "high"))


def _relu_back(model: onnx.ModelProto) -> None:
    node_of(model, "r").CopyFrom(helper.make_node("Relu", ["a"], ["r"], name="first"))


def _operand(model: onnx.ModelProto) -> None:
    node_of(model, "r").input[0] = "x"


def _moved(model: onnx.ModelProto) -> None:
    """Hoist all constants to the front, as optimisers do."""
    nodes = sorted(model.graph.node, key=lambda node: node.op_type != "Constant")
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _body(model: onnx.ModelProto) -> None:
    """Make the operator's definition something else: what a runtime without the library computes."""
    function = next(function for function in model.functions if function.name == "JumpRelu")
    del function.node[:]
    function.node.append(helper.make_node("Neg", ["x"], ["y"]))


def _clone(model: onnx.ModelProto) -> None:
    """Change a clone beside its site."""
    function = next(function for function in model.functions if function.name == "block_jr")
    function.node[0].op_type = "Neg"


def _default(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "k")
    tensor.CopyFrom(helper.make_tensor("k", onnx.TensorProto.FLOAT, [], [7.0]))


def _range(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if any(item.name in ("low", "kappa_low") for item in node.attribute))
    next(item for item in node.attribute if item.name in ("low", "kappa_low")).f = 0.0


TAMPERED_GRAPHS: list[tuple[str, str, Callable[[onnx.ModelProto], None], str]] = [
    ("fixed", "thresholded", _alpha, "site first: the graph holds r = ThresholdedRelu(a) {alpha=0.5}"),
    ("fixed", "thresholded", _relu_back, "site first: the graph holds r = Relu(a)"),
    ("fixed", "thresholded", _operand, "site first: the graph holds r = ThresholdedRelu(x)"),
    ("fixed", "where", _constant, "site first: the graph holds r/jr_kappa = Constant"),
    ("fixed", "where", _moved, ""),
    ("fixed", "thresholded", _cap, "site second: its cap in the provenance is 6.0, expected 9.0"),
    ("fixed", "custom", _body, ""),
    ("input", "where", _clone, ""),
    ("input", "where", _default, ""),
    ("random op", "custom", _range, ""),
    ("random op per site", "custom", _range, "site first: the graph holds r = jr_onnx::JumpRelu(a)"),
    ("random graph", "where", _range, ""),
    ("random graph per site", "where", _range, "site first: the graph holds r/jr_drawn_vector = RandomUniform()"),
]


@pytest.mark.parametrize(("plan", "lowering", "change", "reason"), TAMPERED_GRAPHS)
def test_a_changed_graph_disagrees(
    plan: str, lowering: str, change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model, _ = rewrite(network(), PLANS[plan], lowering=lowering)
    assert examine(model)
    change(model)
    found = examine(model)
    assert not found, "the change went unseen"
    assert found.reason.startswith(reason)
    with pytest.raises(JrError):
        restore(model)
    with pytest.raises(JrError):
        rewrite(model, 0.5, replace=True)


def test_a_change_away_from_the_sites_is_no_disagreement() -> None:
    """What another tool did to the rest of the graph leaves the sites what they are."""
    model, _ = rewrite(network(), 0.25)
    node_of(model, "y").op_type = "Exp"
    model.metadata_props.add(key="tool", value="another")
    found = examine(model)
    assert found, found.reason
    assert found.original is not None
    assert node_of(found.original, "y").op_type == "Exp"


def test_a_source_with_a_jump_of_its_own_agrees(tmp_path: Path) -> None:
    """ThresholdedRelu with the very kappa of the retrofit, there before: the source's digest tells."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) '
        "{ h = ThresholdedRelu <alpha = 0.25> (x) y = Relu (h) }"
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    written, _ = rewrite(path, 0.25)
    found = examine(onnx.load(written))
    assert found, found.reason


def test_a_foreign_body_of_the_operator_is_named() -> None:
    """Without any provenance: the op library's kernel would run in place of what the file says."""
    model, _ = rewrite(network(), 0.25, lowering="custom")
    _body(model)
    provenance.remove(model)
    found = examine(model)
    assert not found
    assert found.has_foreign_body
    assert "jr_onnx::JumpRelu" in found.reason


@pytest.mark.parametrize("plan", PLANS)
def test_our_own_bodies_are_known(plan: str) -> None:
    for opset in (12, 14, 17, 21):
        source = network()
        for entry in (*source.opset_import, *(item for body in source.functions for item in body.opset_import)):
            if not entry.domain:
                entry.version = opset
        for target in ("portable", "cuda"):
            model, _ = rewrite(source, PLANS[plan], lowering="custom", target=target)
            provenance.remove(model)
            found: Agreement = examine(model)
            assert found, found.reason
            assert any(function.domain == "jr_onnx" for function in model.functions)


def test_a_record_is_compared_field_by_field() -> None:
    """Every field of a site's record is in the comparison, or named here with the reason."""
    compared = {"form", "dtype", "scope", "output", "cap", "lowering", "nodes", "kappa", "rank", "original"}
    assert {field.name for field in dataclasses.fields(SiteRecord)} == compared | {"id"}  # the id finds the site
