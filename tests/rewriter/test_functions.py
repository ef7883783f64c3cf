"""Sites in function bodies: run-time kappas reach them, and their operator sets may differ from the model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import checker, helper, parser

from jr_onnx.errors import RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import find_sites, restore, rewrite
from jr_onnx.semantics import jump_relu

NESTED = """<ir_version: 8, opset_import: ["" : 17, "p" : 1]>
g (float[N] x) => (float[N] y, float[N] z) {
  a = Neg(x)
  b = p.outer(a)
  y = Relu(b)
  z = p.inner(x)
}
<domain: "p", opset_import: ["" : 17, "p" : 1]>
outer (u) => (v) { w = p.inner(u)  q = Neg(w)  v = p.inner(q) }
<domain: "p", opset_import: ["" : 17]>
inner (s) => (t) { t = Relu(s) }
"""
X = np.asarray([-3.0, -0.3, 0.0, 0.1, 0.25, 0.3, 2.0], np.float32)


def plans() -> list[KappaPlan]:
    randoms = [
        RandomKappa(0.1, 0.2, per, source)  # type: ignore[arg-type]
        for per in ("network", "site")
        for source in ("input", "op", "graph")
        if (per, source) != ("site", "input")
    ]
    return [*map(KappaPlan.of, randoms), KappaPlan(kappa=0.1), KappaPlan(kappa=0.1, input_name="k")]


def computed(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("plan", plans(), ids=str)
@pytest.mark.parametrize("lowering", ["auto", "where", "custom"])
def test_every_plan_reaches_functions_and_comes_back(plan: KappaPlan, lowering: str) -> None:
    model = parser.parse_model(NESTED)
    try:
        output, result = rewrite(model, plan, lowering=lowering)
    except RefusalError:
        assert lowering == "where"
        assert plan.random is not None
        assert (plan.random.source, plan.random.per) == ("op", "site")
        return
    assert {row.id for row in result.sites} == {"y", "fn:p::inner/t"}
    assert restore(output) == model
    plain, jumped = computed(model, {"x": X}), computed(output, {"x": X})
    far = np.abs(X) > 0.2  # beyond the largest kappa drawn J is ReLU
    assert all(np.array_equal(one[far], other[far]) for one, other in zip(plain, jumped, strict=True))
    assert (jumped[1][X == 0.1] == 0).all()


def other_opset(function_opset: int, model_opset: int, body: str = "v = Relu(u)") -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {model_opset}, "p" : 1]>\n'
        "g (float[N] x) => (float[N] y) { y = p.f(x) }\n"
        f'<domain: "p", opset_import: ["" : {function_opset}]> f (u) => (v) {{ {body} }}'
    )
    checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(("function_opset", "model_opset"), [(17, 19), (21, 23), (14, 22), (22, 15), (18, 25)])
@pytest.mark.parametrize("plan", [*plans(), KappaPlan(by_site=(("v", 0.1),))], ids=str)
@pytest.mark.parametrize("lowering", ["auto", "where", "thresholded", "custom"])
def test_a_function_may_import_another_opset(
    function_opset: int, model_opset: int, plan: KappaPlan, lowering: str
) -> None:
    model = other_opset(function_opset, model_opset)
    try:
        output, _ = rewrite(model, plan, lowering=lowering)
    except RefusalError as refusal:
        # Standard nodes would be other operators there, and the operator's own function stands apart.
        drawn_beside = plan.random is not None and plan.random.source == "graph"
        assert lowering in ("where", "thresholded") or drawn_beside
        assert "ONNX wants the same" in str(refusal) or plan.random is not None or plan.input_name is not None  # noqa: PT017
        return
    checker.check_model(output)
    assert restore(output) == model
    if max(function_opset, model_opset) <= 24 and plan.random is None:
        assert np.array_equal(computed(output, {"x": X})[0], jump_relu(X, 0.1))


def test_a_graph_that_a_call_hands_to_its_function_is_put_back() -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17, "p" : 1]>\n'
        "g (float[N] x, bool c) => (float[N] y) { y = p.pick <then = yes () => (float[N] o) "
        "{ h = p.act(x) o = Relu(h) }> (x, c) }\n"
        '<domain: "p", opset_import: ["" : 17, "p" : 1]> pick <then> (u, c) => (v) { a = p.act(u) v = Neg(a) }\n'
        '<domain: "p", opset_import: ["" : 17]> act (s) => (t) { t = Relu(s) }'
    )
    for plan in plans():
        output, result = rewrite(model, plan)
        assert len(result.sites) == 2
        assert restore(output) == model


def test_functions_whose_parts_hold_colons_are_not_mixed_up() -> None:
    model = parser.parse_model(NESTED)
    other = model.functions.add()
    other.CopyFrom(model.functions[1])
    model.functions[1].domain, model.functions[1].name = "p::q", "r"
    other.domain, other.name, other.overload = "p", "q", "r"
    for nodes in (model.graph.node, model.functions[0].node):
        for node in nodes:
            if node.op_type == "inner":
                node.domain, node.op_type = "p::q", "r"
    model.graph.node[1].CopyFrom(helper.make_node("q", ["a"], ["b"], domain="p", overload="r"))
    for holder in (model, *model.functions):
        holder.opset_import.append(helper.make_opsetid("p::q", 1))
    for plan in plans():
        output, _ = rewrite(model, plan)
        assert restore(output) == model


OVERRIDABLE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x, float zero) => (float[N] y) <float zero = {0}> { [r] a = Relu(x) [m] y = Max(a, zero) }
"""


@pytest.mark.parametrize("plan", plans(), ids=str)
def test_a_site_that_a_demotion_brings_to_light_is_rewritten(plan: KappaPlan) -> None:
    model = parser.parse_model(OVERRIDABLE)
    assert [site.id for site in find_sites(model).sites] == ["r"]
    output, result = rewrite(model, plan, demote_initializer_inputs=True)
    assert [row.id for row in result.sites] == ["r", "m"]
    assert restore(output) == model
    output, result = rewrite(model, plan, demote_initializer_inputs=True, include=("m",))
    assert [row.id for row in result.sites] == ["m"]
    assert result.skipped == ("r",)
    assert restore(output) == model


def test_an_initializer_of_a_loop_body_that_the_loop_overrides_is_no_constant() -> None:
    model = parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 11]>\n'
        "g (float[N] x) => (float[N] y) <int64 n = {2}> { y = Loop <body = b (int64 i, bool c, float[N] z) => "
        "(bool d, float[N] w) { d = Identity(c) w = Max(x, z) }> (n, , x) }"
    )
    body = model.graph.node[0].attribute[0].g
    body.initializer.append(helper.make_tensor("z", onnx.TensorProto.FLOAT, [1], [0.0]))
    assert not find_sites(model).sites
