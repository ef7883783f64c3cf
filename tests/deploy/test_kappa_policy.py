"""A model is packaged only where its kappa is what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jr_onnx.deploy.kappa_policy import check_kappa
from jr_onnx.deploy.model import ModelFacts, read_model
from jr_onnx.errors import RefusalError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite


def _facts(model: Path, kappa: Any, **options: Any) -> ModelFacts:
    target = model.with_name("retrofit.onnx")
    rewrite(model, kappa, output=target, **options)
    return read_model(target)


def _check(
    facts: ModelFacts, *, with_library: bool = False, allow_fixed: bool = False, expose: bool = False
) -> tuple[str, ...]:
    return check_kappa(facts, with_library=with_library, allow_fixed=allow_fixed, expose=expose)


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_a_fixed_kappa_needs_nothing(model: Path, lowering: str) -> None:
    assert _check(_facts(model, 0.06, lowering=lowering)) == ()


def test_a_model_that_is_no_retrofit_needs_nothing(model: Path) -> None:
    assert _check(read_model(model)) == ()


def test_a_random_input_is_refused_because_nobody_would_draw_it(model: Path) -> None:
    facts = _facts(model, RandomKappa(0.0, 0.1))
    with pytest.raises(RefusalError, match="kappa is random, but nothing would draw it there") as caught:
        _check(facts)
    assert "--random-source op" in caught.value.hint
    assert "jr-onnx serve" in caught.value.hint
    assert "--allow-fixed-kappa" in caught.value.hint
    assert "--expose-kappa" not in caught.value.hint


def test_a_random_input_stays_at_the_middle_where_that_is_accepted(model: Path) -> None:
    (note,) = _check(_facts(model, RandomKappa(0.0, 0.1)), allow_fixed=True)
    assert "the middle of the range" in note


def test_a_random_input_is_never_left_to_the_clients(model: Path) -> None:
    facts = _facts(model, RandomKappa(0.0, 0.1))
    for allow_fixed in (True, False):
        with pytest.raises(RefusalError, match="the clients themselves would set it"):
            _check(facts, expose=True, allow_fixed=allow_fixed)


def test_a_plain_kappa_input_needs_a_decision(model: Path) -> None:
    facts = _facts(model, KappaPlan(kappa=0.06, input_name="threshold"))
    with pytest.raises(RefusalError, match="'threshold' would stay at its default") as caught:
        _check(facts)
    assert "--expose-kappa" in caught.value.hint
    assert "default of the input 'threshold'" in _check(facts, allow_fixed=True)[0]
    assert "clients can set kappa" in _check(facts, expose=True)[0]


def test_there_is_nothing_to_expose_in_a_model_with_a_fixed_kappa(model: Path) -> None:
    with pytest.raises(RefusalError, match="not a runtime input"):
        _check(_facts(model, 0.06), expose=True)


def test_a_kappa_drawn_by_the_operator_needs_its_library(model: Path) -> None:
    facts = _facts(model, RandomKappa(0.0, 0.1, source="op"), lowering="custom")
    assert facts.draws_in_op
    with pytest.raises(RefusalError, match="nothing would draw it") as caught:
        _check(facts)
    assert "--op-library" in caught.value.hint
    (note,) = _check(facts, with_library=True)
    assert "each gets a kappa of its own" in note


def test_a_kappa_drawn_in_the_graph_counts_as_fixed(model: Path) -> None:
    facts = _facts(model, RandomKappa(0.0, 0.1, source="graph"), lowering="where")
    with pytest.raises(RefusalError, match="a client can predict: as good as fixed"):
        _check(facts)
    assert "predict" in _check(facts, allow_fixed=True)[0]
