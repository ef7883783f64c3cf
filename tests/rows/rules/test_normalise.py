"""The largest entries along an axis. The other rules of the module: `rows/test_proof.py`."""

from __future__ import annotations

import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TOKENS, c, parse

PROVED = (
    c("k", "2") + "y, p = TopK (x, k)",
    c("k", "2") + "y, p = TopK <axis = 1> (x, k)",
)
NOT_PROVED = {
    c("k", "2") + "y, p = TopK <axis = 0> (x, k)": "over the axis of the batch",
}


@pytest.mark.parametrize("body", PROVED)
def test_rows_are_independent(body: str) -> None:
    assert_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"))


@pytest.mark.parametrize(("body", "reason"), NOT_PROVED.items())
def test_where_rows_may_see_each_other(body: str, reason: str) -> None:
    assert_not_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"), reason)
