"""Triangles of matrices. The other rules of the module: `rows/test_proof.py`."""

from __future__ import annotations

import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TOKENS, parse

PROVED = (
    "y = Trilu <upper = 0> (x)",
    "y = Trilu (x)",
)
NOT_PROVED = {
    "k = Transpose <perm = [1,0,2]> (x) t = Trilu (k) y = Transpose <perm = [1,0,2]> (t)": (
        "the rows lie along one of its last two axes"
    ),
}


@pytest.mark.parametrize("body", PROVED)
def test_rows_are_independent(body: str) -> None:
    assert_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"))


@pytest.mark.parametrize(("body", "reason"), NOT_PROVED.items())
def test_where_rows_may_see_each_other(body: str, reason: str) -> None:
    assert_not_proved(parse(body, inputs=TOKENS, output="float[N,A,B] y"), reason)
