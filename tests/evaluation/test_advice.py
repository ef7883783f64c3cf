"""What is said of a budget, of the number of samples and of wider budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jr_onnx.evaluation.advice import advice, least_difference
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import mcnemar
from tests.evaluation.builders import evaluation, first, outcome


def lines(*outcomes: Outcome, **changes: Any) -> list[str]:
    return list(advice(evaluation(*outcomes, **changes)))


def pair(original: int, retrofit: int, total: int = 1000, **changes: Any) -> list[Outcome]:
    """PGD fools so many samples of each model."""
    counts = {"original": original, "retrofit": retrofit}
    return [outcome("pgd", first(count, total), model=model, **changes) for model, count in counts.items()]


LARGE = ["the budget linf 0.1 is too large to tell models apart: hardly any image survives it"]
SMALL = ["the budget linf 0.1 is too small to tell models apart: attacks fool hardly any image within it"]


@pytest.mark.parametrize(
    ("fooled", "expected"),
    [
        ((950, 1000), LARGE), ((949, 1000), []), ((1000, 949), []),
        ((50, 0), SMALL), ((51, 0), []), ((0, 51), []),
    ],
)  # fmt: skip
def test_a_budget_tells_nothing_where_it_fools_hardly_an_image_or_nearly_all_of_every_model(
    fooled: tuple[int, int], expected: list[str]
) -> None:
    assert lines(*pair(*fooled)) == expected


def test_a_budget_is_small_by_what_it_fools_and_not_by_what_is_right() -> None:
    right = (True,) * 500 + (False,) * 500
    wrong = {"correct": right, "served_correct": right}
    assert lines(*pair(20, 20, **wrong)) == SMALL
    assert lines(*pair(0, 0, **wrong), eps=0.2) == [], "no attack has the budget that was asked for"


def test_the_budget_is_judged_by_all_attacks_of_its_norm_together() -> None:
    exact, surrogate = outcome("pgd", first(10, 1000)), outcome("bpda", first(980, 1000), view="surrogate")
    assert lines(exact, surrogate) == LARGE
    others = [outcome("l2", first(0, 1000), norm="l2"), outcome("narrow", first(0, 1000), eps=0.01)]
    assert lines(exact, surrogate, *others) == LARGE


def test_few_samples_say_nothing_of_a_budget_and_little_of_a_difference() -> None:
    assert lines(outcome("pgd", first(19, 19))) == [
        "19 samples are too few to judge a budget by, or a share: see the intervals"
    ]
    assert lines(outcome("pgd", first(20, 20))) == LARGE
    few = (
        "{} samples are few: only differences of {} and more can be significant (p below 0.05); "
        "60 samples show one of 10%"
    )
    assert lines(*pair(19, 19, 19)) == [few.format(19, "32%")]
    assert lines(*pair(20, 20, 59)) == [few.format(59, "10%")]
    assert lines(*pair(20, 20, 60)) == []


def test_a_wider_budget_than_asked_for_is_a_check_of_the_attacks() -> None:
    asked, wider, widest = (outcome(f"pgd {eps}", first(500, 1000), eps=eps) for eps in (0.1, 0.2, 0.4))
    (found,) = lines(wider, asked, widest)
    assert found.startswith(
        "the rows at linf 0.4 are not a threat model but a check: with such a budget an attack must win"
    )
    others = [outcome("narrow", first(500, 1000), eps=0.05), outcome("l2", first(500, 1000), norm="l2", eps=3.0)]
    assert lines(asked, *others) == [], "a budget in another norm is neither wide nor narrow"
    assert lines(widest, eps=0.2) == []
    assert lines(others[1]) == []


def test_the_least_difference_is_that_of_the_test() -> None:
    for samples in (20, 100):
        changed = round(least_difference(samples) * samples)
        before = np.zeros(samples, dtype=bool)
        assert mcnemar(np.arange(samples) < changed, before) < 0.05 <= mcnemar(np.arange(samples) < changed - 1, before)
    assert least_difference(0) == least_difference(3) == 1.0
