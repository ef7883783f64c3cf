"""Quantised arithmetic, through ONNX Runtime: one scale for all rows, and none that is taken from them."""

from __future__ import annotations

import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TABLE, c, parse

Q = "e = Constant <value = float {0.05}> () u = Constant <value = uint8 {128}> () q = QuantizeLinear(x, e, u)\n"
WEIGHTS = c("s", "6,2") + "w = ConstantOfShape <value = uint8[1] {131}> (s)\n"
MS = "com.microsoft."
PROVED = {
    "sum": (f"y = {MS}QLinearAdd(q, e, u, q, e, u, e, u)", "uint8[N,6] y"),
    "product": (f"y = {MS}QLinearMul(q, e, u, q, e, u, e, u)", "uint8[N,6] y"),
    "leaky": (f"y = {MS}QLinearLeakyRelu <alpha = 0.1> (q, e, u, e, u)", "uint8[N,6] y"),
    "sigmoid": (
        f"f = Constant <value = float {{0.004}}> () z = Constant <value = uint8 {{0}}> () "
        f"y = {MS}QLinearSigmoid(q, e, u, f, z)", "uint8[N,6] y"),
    "side by side": (f"y = {MS}QLinearConcat <axis = 1> (e, u, q, e, u, q, e, u)", "uint8[N,12] y"),
    "softmax": (
        f"f = Constant <value = float {{0.004}}> () z = Constant <value = uint8 {{0}}> () "
        f"y = {MS}QLinearSoftmax <axis = 1, opset = 17> (q, e, u, f, z)", "uint8[N,6] y"),
    "product of matrices": (WEIGHTS + "y = QLinearMatMul(q, e, u, w, e, u, e, u)", "uint8[N,2] y"),
    "integer product": (WEIGHTS + "y = MatMulInteger(q, w, u, u)", "int32[N,2] y"),
    "integer product to float": (WEIGHTS + f"y = {MS}MatMulIntegerToFloat(q, w, e, e, u, u)", "float[N,2] y"),
    "layer": (WEIGHTS + f"y = {MS}QGemm(q, e, u, w, e, u, , e, u)", "uint8[N,2] y"),
}  # fmt: skip
NOT_PROVED = {
    "behind each other": (f"y = {MS}QLinearConcat <axis = 0> (e, u, q, e, u, q, e, u)", "(QLinearConcat): "),
    "softmax over the rows": (
        f"y = {MS}QLinearSoftmax <axis = 0, opset = 17> (q, e, u, e, u)", "it works over the axis of the batch"),
    "softmax in the manner of opset 12": (
        f"y = {MS}QLinearSoftmax <axis = 0, opset = 12> (q, e, u, e, u)", "it works over the axis of the batch"),
    "a scale for each line": (
        f"{c('t', '4')}v = ConstantOfShape <value = float[1] {{0.5}}> (t) y = {MS}QLinearAdd(q, v, u, q, e, u, e, u)",
        "(QLinearAdd): "),
    "a scale taken from the rows": (
        f"{WEIGHTS}y = {MS}DynamicQuantizeMatMul(x, w, e)", "it takes one scale from all rows of the batch"),
    "a product of rows with rows": (
        "k = Transpose <perm = [1,0]> (q) y = MatMulInteger(q, k, u, u)", "(MatMulInteger): "),
}  # fmt: skip


@pytest.mark.parametrize("name", PROVED)
def test_lines_are_independent_to_the_last_bit(name: str) -> None:
    """Integers are summed exactly; what becomes float is one product of the same numbers."""
    body, output = PROVED[name]
    assert_proved(parse(Q + body, inputs=TABLE, output=output))


@pytest.mark.parametrize("name", NOT_PROVED)
def test_where_lines_may_see_each_other(name: str) -> None:
    body, reason = NOT_PROVED[name]
    assert_not_proved(parse(Q + body, inputs=TABLE, output="float[N,M] y"), reason)
