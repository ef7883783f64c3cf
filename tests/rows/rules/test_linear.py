"""ONNX Runtime's own products and sums. The other rules of the module: `rows/test_proof.py`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TOKENS, c, parse

# Sums of 6 products of values below 4, or a line of 6 normalised to values below 3.
SUMS = 6 * 16 * float(np.finfo(np.float32).eps)
PROVED = (
    "y = com.microsoft.FusedMatMul <transB = 1> (x, x)",
    "y = com.microsoft.FusedMatMul <transA = 1, alpha = 0.5> (x, x)",
    c("s", "6") + "g = ConstantOfShape <value = float[1] {1}> (s) y = com.microsoft.SkipLayerNormalization (x, x, g)",
)
NOT_PROVED = {
    "y = com.microsoft.FusedMatMul <transBatchA = 1> (x, x)": "it moves the axis of the batch",
    c("s", "6") + "g = ConstantOfShape <value = float[1] {1}> (s) k = Transpose <perm = [1,2,0]> (x) "
    "n = com.microsoft.SkipLayerNormalization (k, k, g) "
    "y = Transpose <perm = [2,0,1]> (n)": "it normalises over the axis of the batch",
}


@pytest.mark.parametrize("body", PROVED)
def test_rows_are_independent(body: str) -> None:
    assert_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"), SUMS)


@pytest.mark.parametrize(("body", "reason"), NOT_PROVED.items())
def test_where_rows_may_see_each_other(body: str, reason: str) -> None:
    assert_not_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"), reason)
