"""Whatever is proved holds on ONNX Runtime: a batch gives every row what it gets alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings

from jr_onnx.rows import prove_rows
from jr_onnx.rows.trial import close
from tests.rows.build import ROWS, session
from tests.rows.graphs import graphs

Drawn = tuple[onnx.ModelProto, dict[str, np.ndarray]]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_what_is_proved_holds(drawn: Drawn) -> None:
    check(*drawn)


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(graphs())
def test_what_is_proved_holds_for_many_graphs(drawn: Drawn) -> None:
    check(*drawn)


def check(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    proof = prove_rows(model)
    event("proved" if proof else f"not proved: {proof.reason}")
    if not proof:
        assert proof.reason
        assert "do not fit its operator" not in proof.reason, onnx.printer.to_text(model)  # the graph is legal
        return
    opened = session(model)
    (together,) = opened.run(None, feeds)
    assert together.shape[:1] == (ROWS,), onnx.printer.to_text(model)
    for row in range(ROWS):
        try:
            (alone,) = opened.run(None, {name: array[row : row + 1] for name, array in feeds.items()})
        except Exception as error:
            raise AssertionError(onnx.printer.to_text(model)) from error
        assert alone.shape == (1, *together.shape[1:]), onnx.printer.to_text(model)
        assert close(together[row : row + 1], alone), onnx.printer.to_text(model)
