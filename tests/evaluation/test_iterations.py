"""Robust accuracy against iterations: who is left after each number of steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jr_onnx.evaluation.iterations import EXACT, GRADIENTS, alive_after, iteration_curves
from jr_onnx.evaluation.summary import evaluate
from tests.evaluation.builders import by_model, evaluation, first, outcome, run_record


def test_a_sample_leaves_in_the_step_that_fools_it() -> None:
    found = outcome(
        "pgd", [True, True, False, True], iterations=(0, 3, 40, 7), served_correct=(True, True, True, False)
    )
    assert [alive_after(found, count).tolist() for count in (0, 2, 3, 40)] == [
        [False, True, True, False], [False, True, True, False],
        [False, False, True, False], [False, False, True, False],
    ]  # fmt: skip
    assert alive_after(found, 40).tolist() == found.served_robust.tolist()


def test_groups_stop_after_the_same_number_and_end_at_the_worst_case() -> None:
    exact = outcome("pgd", first(40, 100), iterations=(5,) * 40 + (40,) * 60)
    smooth = outcome("smooth", first(60, 100), iterations=(20,) * 60 + (100,) * 40, view="surrogate")
    others = {
        "square": outcome("square", first(90, 100), view="black_box", iterations=(1000,) * 100),
        "ddn": outcome("ddn", first(100, 100), eps=None, norm="l2"),
        "wide": outcome("wide", first(99, 100), eps=0.4),
    }
    outcomes = {"retrofit": {"pgd": exact, "smooth": smooth, **others}}
    evaluation = evaluate(run_record(entries=("pgd", "smooth", *others)), outcomes)
    alone, all_of_them = iteration_curves(evaluation, outcomes)
    assert (alone.group, all_of_them.group) == (EXACT, GRADIENTS)
    assert (alone.entries, all_of_them.entries) == (("pgd",), ("pgd", "smooth"))
    assert alone.iterations == (0, 1, 2, 3, 5, 7, 10, 20, 30, 40)
    assert alone.robust == (1.0, 1.0, 1.0, 1.0, *(0.6,) * 6)
    assert all_of_them.iterations == (0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100)
    by_count = dict(zip(all_of_them.iterations, all_of_them.robust, strict=True))
    assert (by_count[0], by_count[5], by_count[10], by_count[20], by_count[100]) == (1.0, 0.6, 0.6, 0.4, 0.4)
    assert all(low <= share <= high for low, share, high in zip(alone.low, alone.robust, alone.high, strict=True))


def test_without_surrogates_there_is_one_group_and_without_gradients_none() -> None:
    outcomes = {"retrofit": {"pgd": outcome("pgd", first(4, 10))}}
    record = run_record(samples=10)
    assert [curve.group for curve in iteration_curves(evaluate(record, outcomes), outcomes)] == [EXACT]
    queried = {"retrofit": {"pgd": replace(outcomes["retrofit"]["pgd"], view="black_box")}}
    assert iteration_curves(evaluate(record, queried), queried) == ()


def test_every_model_has_its_curves() -> None:
    known = [outcome("pgd", first(count, 10), model=model) for model, count in (("original", 4), ("retrofit", 1))]
    found = iteration_curves(evaluation(*known), by_model(known))
    assert [(curve.model, curve.robust[-1]) for curve in found] == [("original", 0.6), ("retrofit", 0.9)]


def test_an_attack_that_never_moved_has_one_point() -> None:
    outcomes = {"retrofit": {"pgd": outcome("pgd", first(4, 10), iterations=(0,) * 10)}}
    (curve,) = iteration_curves(evaluate(run_record(samples=10), outcomes), outcomes)
    assert (curve.iterations, curve.robust) == ((0,), (0.6,))
    assert np.isclose(curve.high[0] + curve.low[0], 2 * 0.6, atol=0.2)
