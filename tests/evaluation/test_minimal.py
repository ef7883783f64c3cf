"""The least perturbation of several attacks, and two models compared by it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jr_onnx.evaluation.minimal import compare_minimal, least, median, minimal_figures, minimal_outcomes
from jr_onnx.evaluation.outcome import Outcome
from tests.evaluation.builders import outcome


def minimal(entry: str, sizes: list[float], norm: str = "l2", **changes: object) -> Outcome:
    won = [math.isfinite(size) for size in sizes]
    return outcome(entry, won, eps=None, norm=norm, relative=tuple(sizes), **changes)


def test_only_adaptive_attacks_without_a_budget_count_by_norm() -> None:
    kept = [minimal("a", [1.0], "linf"), minimal("b", [1.0], "l2"), minimal("c", [1.0], "linf")]
    others = [outcome("pgd", [True]), minimal("paper/deepfool", [1.0], protocol="paper")]
    found = minimal_outcomes([*others, *kept])
    assert list(found) == ["l2", "linf"]
    assert [item.entry for item in found["linf"]] == ["a", "c"]


def test_a_failure_is_infinite_whatever_it_reached() -> None:
    failed = outcome("a", [False, False], eps=None, relative=(0.1, 0.1))
    assert least([failed, minimal("b", [0.3, math.inf])]).tolist() == [0.3, math.inf]


def test_the_figures_of_a_norm() -> None:
    correct = (True, True, True, False)
    one = minimal("a", [0.4, 0.2, math.inf, 0.0], correct=correct)
    other = minimal("b", [0.1, 0.6, math.inf, 0.0], correct=correct)
    (found,) = minimal_figures([one, other])
    assert (found.norm, found.entries) == ("l2", ("a", "b"))
    assert found.success_rate == pytest.approx(2 / 3)
    assert found.median_relative == 0.2
    assert found.mean_relative == pytest.approx(0.15)


def test_figures_where_nothing_was_attacked_or_nothing_fooled() -> None:
    (nothing,) = minimal_figures([minimal("a", [0.0], correct=(False,))])
    assert (nothing.success_rate, nothing.median_relative, nothing.mean_relative) == (0.0, 0.0, 0.0)
    (one,) = minimal_figures([minimal("a", [0.3])])
    assert (one.success_rate, one.median_relative, one.mean_relative) == (1.0, 0.3, 0.3)
    (failed,) = minimal_figures([minimal("a", [math.inf, math.inf])])
    assert (failed.success_rate, failed.median_relative, failed.mean_relative) == (0.0, math.inf, 0.0)


def test_models_are_compared_where_both_are_right_and_in_the_norms_of_both() -> None:
    new = [
        minimal("a", [0.4] * 6 + [0.1] * 2, correct=(True,) * 7 + (False,)),
        minimal("a/linf", [0.1] * 8, "linf"),
    ]
    old = [minimal("a", [0.2] * 8, correct=(False,) + (True,) * 7)]
    (found,) = compare_minimal(new, old)
    assert (found.norm, found.samples, found.ratio) == ("l2", 6, 2.0)
    # Of 6 samples the retrofit's perturbation is larger on 5, smaller on 1: P(X >= 5) = 7/64, two-sided.
    assert found.p_value == pytest.approx(14 / 64)
    (back,) = compare_minimal(old, new)
    assert (back.samples, back.ratio, back.p_value) == (6, 0.5, found.p_value)
    (even,) = compare_minimal(old, old)
    assert (even.ratio, even.p_value) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([3.0], 3.0),
        ([4.0, 1.0], 2.5),
        ([5.0, 1.0, 2.0], 2.0),
        ([1.0, 9.0, 2.0, 4.0], 3.0),
        ([1.0, math.inf], math.inf),
        ([math.inf, math.inf], math.inf),
        ([math.inf, 1.0, 2.0], 2.0),
        ([math.inf, 1.0, 2.0, math.inf], math.inf),
    ],
)
def test_the_median_of_sizes_of_which_some_are_infinite(sizes: list[float], expected: float) -> None:
    assert median(np.array(sizes)) == expected
