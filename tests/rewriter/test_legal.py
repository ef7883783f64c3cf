"""Random legal models: what is rewritten comes back to the byte and computes what the reference computes."""

from __future__ import annotations

import pytest

from tests.rewriter import legal


def try_models(count: int, start: int) -> None:
    counts = legal.run(count, start).counts
    assert counts["models"] >= count
    assert counts["rewritten"] > count / 3, counts
    assert counts["compared"] > count / 3, counts


def test_some_legal_models() -> None:
    try_models(120, 1)


@pytest.mark.slow
@pytest.mark.parametrize("start", [21, 22])
def test_five_thousand_legal_models(start: int) -> None:
    try_models(2500, start)
