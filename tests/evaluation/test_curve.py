"""The security curve: who survives within each budget, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.evaluation.curve import SecurityCurve, security_curves
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import wilson
from tests.evaluation.builders import by_model, evaluation, outcome

INF = float("inf")


def minimal(entry: str, sizes: list[float], **changes: object) -> Outcome:
    won = [size < INF for size in sizes]
    return outcome(entry, won, eps=None, distance=tuple(0.0 if size == INF else size for size in sizes), **changes)


def curves(*outcomes: Outcome, others: tuple[Outcome, ...] = ()) -> tuple[SecurityCurve, ...]:
    evaluations = [evaluation(*found) for found in (outcomes, others) if found]
    return security_curves(evaluations, by_model(outcomes))


def test_a_sample_counts_while_every_minimising_attack_needs_more_than_the_budget() -> None:
    right = (True, True, True, True, False)
    one = minimal("fmn", [0.1, 0.4, 0.3, INF, 0.2], served_correct=right)
    other = minimal("deepfool", [0.2, 0.2, INF, INF, 0.2], served_correct=right)
    (curve,) = curves(one, other, outcome("pgd", [True] * 5, distance=(0.01,) * 5, served_correct=right))
    assert (curve.model, curve.norm) == ("retrofit", "linf")
    sizes = np.array([0.1, 0.2, 0.3, INF])
    assert curve.robust == tuple(int(np.sum(sizes > eps)) / 5 for eps in curve.eps)
    assert (curve.robust[0], curve.robust[-1]) == (0.8, 0.2)
    assert [(low, high) for low, high in zip(curve.low, curve.high, strict=True)] == [
        wilson(round(5 * share), 5) for share in curve.robust
    ]


def test_the_budgets_reach_a_little_beyond_all_but_the_largest_perturbations() -> None:
    (curve,) = curves(minimal("fmn", [0.1] * 99 + [5.0], served_correct=(True,) * 100))
    assert (len(curve.eps), curve.eps[0]) == (60, 0.0)
    assert np.ptp(np.diff(curve.eps)) < 1e-12, "evenly spaced"
    assert curve.eps[-1] == pytest.approx(0.11)
    wrong = minimal("fmn", [0.1] * 50 + [7.0] * 50, served_correct=(True,) * 50 + (False,) * 50)
    assert curves(wrong)[0].eps[-1] == pytest.approx(0.11), "what was not attacked needs no room"


def test_a_perturbation_of_exactly_the_budget_fools_within_it() -> None:
    edge = [0.5] * 9
    budget = curves(minimal("fmn", [*edge, 0.2]))[0].eps[30]
    (curve,) = curves(minimal("fmn", [*edge, budget]))
    assert curve.eps[30] == budget
    assert (curve.robust[29], curve.robust[30]) == (1.0, 0.9)


@pytest.mark.parametrize(("sizes", "robust"), [([INF, INF], 1.0), ([0.0, 0.0], 0.0)])
def test_where_nothing_or_everything_falls_at_once_the_axis_ends_at_one(sizes: list[float], robust: float) -> None:
    (curve,) = curves(minimal("fmn", sizes))
    assert curve.eps[-1] == 1.0
    assert set(curve.robust) == {robust}


def test_every_norm_has_its_curve_and_other_attacks_have_none() -> None:
    found = curves(
        minimal("fmn", [0.1, 0.2]),
        minimal("ddn", [1.0, 2.0], norm="l2"),
        minimal("paper/deepfool", [0.1, 0.2], protocol="paper", norm="l1"),
        outcome("pgd", [True, False]),
    )
    assert [(curve.norm, curve.eps[-1] > 1) for curve in found] == [("l2", True), ("linf", False)]
    assert curves(outcome("pgd", [True, False])) == ()


def test_runs_at_a_fixed_budget_are_points_of_their_model_and_norm() -> None:
    main = [
        item
        for model in ("original", "retrofit")
        for item in (
            outcome("pgd", [True, False], model=model),
            outcome("l2", [True, True], model=model, norm="l2", eps=3.0),
            outcome("paper/pgd", [True, True], model=model, eps=None, protocol="paper"),
            minimal("fmn", [0.3, 0.3], model=model),
        )
    ]
    others = (
        outcome("pgd", [False, False], eps=0.05),
        outcome("more", [False, True], eps=0.05, view="surrogate"),
        outcome("same", [False, False]),
    )
    found = curves(*main, others=others)
    by_label = {curve.model: curve for curve in found}
    assert [(eps, share.count) for eps, share in by_label["original"].points] == [(0.1, 1)]
    assert [(eps, share.count) for eps, share in by_label["retrofit"].points] == [(0.05, 1), (0.1, 1), (0.1, 2)]
