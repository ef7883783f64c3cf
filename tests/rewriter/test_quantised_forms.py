"""ReLUs that a quantiser has turned into integers are named, never passed over; others are let be."""

from __future__ import annotations

import onnx
import pytest

from jr_onnx.rewriter import find_sites

SCALE = "s = Constant<value = float {0.25}>() z = Constant<value = uint8 {5}>() n = Constant<value = uint8 {6}>()"
FRONT = f"{SCALE} q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) zero = Constant<value = float {{0}}>()"


def reasons(body: str) -> list[tuple[str, str]]:
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[N,4] x) => (float[N,4] y)'
        f" {{ {FRONT} {body} y = DequantizeLinear(r, s, z) }}"
    )
    table = find_sites(onnx.parser.parse_model(text))
    assert not table.sites
    return [(item.id, item.reason) for item in table.refusals]


MASK = "g = Greater(d, zero) c = Cast<to = 1>(g) m = QuantizeLinear(c, s, z)"
INTEGERS = {
    "leaky": "r = com.microsoft.QLinearLeakyRelu<alpha = 0.0>(q, s, z, s, z)",
    "where": "g = Greater(d, zero) r = com.microsoft.QLinearWhere(g, q, s, z, z, s, z, s, z)",
    "where, arms swapped": "g = Less(d, zero) r = com.microsoft.QLinearWhere(g, z, s, z, q, s, z, s, z)",
    "product": f"{MASK} r = com.microsoft.QLinearMul(q, s, z, m, s, z, s, z)",
    "product, mask first": f"{MASK} r = com.microsoft.QLinearMul(m, s, z, q, s, z, s, z)",
}
NO_RELU = {
    "leaky": "r = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(q, s, z, s, z)",
    "leaky by default": "r = com.microsoft.QLinearLeakyRelu(q, s, z, s, z)",
    "where, the negative half": "g = Less(d, zero) r = com.microsoft.QLinearWhere(g, q, s, z, z, s, z, s, z)",
    "where, no zero": "g = Greater(d, zero) r = com.microsoft.QLinearWhere(g, q, s, z, n, s, z, s, z)",
    "where, zeros that are computed": "g = Greater(d, zero) c = ReduceMin<keepdims = 0>(q) "
    "r = com.microsoft.QLinearWhere(g, q, s, z, c, s, z, s, z)",
    "where, another threshold": "one = Constant<value = float {1}>() g = Greater(d, one) "
    "r = com.microsoft.QLinearWhere(g, q, s, z, z, s, z, s, z)",
    "where, another value": "v = Neg(d) g = Greater(v, zero) r = com.microsoft.QLinearWhere(g, q, s, z, z, s, z, s, z)",
    "product of two": "r = com.microsoft.QLinearMul(q, s, z, q, s, z, s, z)",
}


@pytest.mark.parametrize("name", INTEGERS)
def test_a_relu_in_integers_is_named_with_the_way_out(name: str) -> None:
    [(site, reason)] = reasons(INTEGERS[name])
    assert site == "r"
    assert "it is a ReLU" in reason
    assert "retrofit the float model and quantise that (docs/quantised.md)" in reason


@pytest.mark.parametrize("name", NO_RELU)
def test_what_only_looks_like_one_is_not_named(name: str) -> None:
    assert not reasons(NO_RELU[name])
