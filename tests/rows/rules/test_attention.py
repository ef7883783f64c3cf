"""Attention as one operator: proved where every row attends to itself, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TOKENS, c, parse

HEADS = "<q_num_heads = 2, kv_num_heads = 2>"
RESULT = "float[N,5,6] y"


def attention(body: str) -> onnx.ModelProto:
    model = parse(body, opset=23, inputs=TOKENS, output=RESULT)
    model.ir_version = 11
    return model


def test_attention_of_each_row_to_itself_is_proved_and_onnx_runtime_agrees() -> None:
    # Both are sums of at most 6 products and 5 weights that add up to 1, in an order of the kernel's choice: each
    # result is exact up to about 11 roundings of values below 4.
    tolerance = 11 * 4 * float(np.finfo(np.float32).eps)
    assert_proved(attention(f"k = Neg(x) y = Attention {HEADS} (x, k, x)"), tolerance)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (f"k = Transpose <perm = [1,0,2]> (x) y = Attention {HEADS} (k, k, k)", "does not have the rows along its"),
        (
            "z = ConstantOfShape <value = float[1] {0}> (s) " + f"y = Attention {HEADS} (x, z, z)",
            "'z' does not have the rows along its first axis",
        ),
        (f"m = ReduceSum <keepdims = 1> (x, a) y = Attention {HEADS} (x, x, x, m)", "it has a mask or a past"),
        (f"y, p, v = Attention {HEADS} (x, x, x)", "its further outputs are not followed"),
    ],
    ids=["tokens first", "keys that all rows share", "mask", "further outputs"],
)
def test_what_may_show_rows_to_each_other_is_not_proved(body: str, says: str) -> None:
    assert_not_proved(attention(c("s", "4,5,6") + c("a", "2") + body), says)
