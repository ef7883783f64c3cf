"""Figures of small evaluations, worked out by hand: groups, worst cases, shares and comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jr_onnx.errors import InputError
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import mcnemar, wilson
from jr_onnx.evaluation.summary import (
    ALL_ATTACKS,
    MODEL,
    ORIGINAL,
    RETROFIT,
    ModelFigures,
    Share,
    accuracy_rows,
    evaluate,
    finished,
    share_of,
    survivors,
)
from tests.evaluation.builders import by_model, evaluation, first, outcome, run_record

PAPER = "paper protocol (non-adaptive): PGD"


def one_model(*outcomes: Outcome) -> ModelFigures:
    return evaluation(*outcomes).models[0]


def worst(figures: ModelFigures) -> dict[tuple[str, str, float | None], int]:
    return {(case.group, case.norm, case.eps): case.robust.count for case in figures.worst}


def test_a_sample_survives_a_group_while_it_survives_every_attack_of_it() -> None:
    figures = one_model(
        outcome("pgd", [True, False, False, False, False]),
        outcome("apgd", [False, True, False, False, False]),
        outcome("bpda", [False, False, True, False, False], view="surrogate"),
        outcome("wide", [True, True, True, True, False], eps=0.3),
        outcome("l2", [False, False, False, True, True], norm="l2", eps=0.5),
        outcome("paper/pgd", [True, True, True, False, False], eps=None, protocol="paper"),
        outcome("paper/bim", [True] * 5, eps=None, protocol="paper"),
    )
    assert list(worst(figures).items()) == list({
        (PAPER, "linf", None): 2,
        ("exact gradient", "l2", 0.5): 3,
        (ALL_ATTACKS, "l2", 0.5): 3,
        ("exact gradient", "linf", 0.1): 3,
        (ALL_ATTACKS, "linf", 0.1): 2,
        ("exact gradient", "linf", 0.3): 1,
        (ALL_ATTACKS, "linf", 0.3): 1,
    }.items())  # fmt: skip
    entries = {(case.group, case.eps): case.entries for case in figures.worst}
    assert entries[ALL_ATTACKS, 0.1] == ("pgd", "apgd", "bpda")
    assert entries["exact gradient", 0.1] == ("pgd", "apgd")
    assert entries[PAPER, None] == ("paper/pgd",)


def test_a_black_box_alone_is_no_exact_gradient() -> None:
    figures = one_model(outcome("square", [True, False], view="black_box"))
    assert worst(figures) == {(ALL_ATTACKS, "linf", 0.1): 1}


def test_a_minimal_perturbation_counts_for_the_budgets_it_fits_into() -> None:
    """It succeeds on four samples, with 0.05, exactly 0.1, a little more, and far more than any budget."""
    sizes = (0.05, 0.1, math.nextafter(0.1, 1), 0.9, 0.0)
    ddn = outcome(
        "ddn", [True, True, True, True, False], eps=None, distance=sizes,
        served_success=(True, True, True, True, False),
    )  # fmt: skip
    figures = one_model(
        outcome("pgd", [False] * 5),
        outcome("wide", [False] * 5, eps=0.3),
        outcome("l2", [False] * 5, norm="l2", eps=5.0),
        ddn,
    )
    assert worst(figures) == {
        ("exact gradient", "l2", 5.0): 5,
        (ALL_ATTACKS, "l2", 5.0): 5,  # a perturbation measured in linf says nothing of l2
        ("exact gradient", "linf", 0.1): 5,
        (ALL_ATTACKS, "linf", 0.1): 3,
        ("exact gradient", "linf", 0.3): 5,
        (ALL_ATTACKS, "linf", 0.3): 2,
    }
    entries = {(case.group, case.norm, case.eps): case.entries for case in figures.worst}
    assert entries[ALL_ATTACKS, "linf", 0.1] == ("pgd", "ddn")
    assert entries[ALL_ATTACKS, "l2", 5.0] == ("l2",)


def test_the_served_file_decides_and_not_the_attacked_network() -> None:
    torch_only = outcome("ddn", [True] * 3, eps=None, distance=(0.05,) * 3, served_success=(True, False, False))
    figures = one_model(outcome("pgd", [False, True, False], served_success=(False, False, True)), torch_only)
    assert worst(figures) == {("exact gradient", "linf", 0.1): 2, (ALL_ATTACKS, "linf", 0.1): 1}
    pgd = figures.entries[0]
    assert (pgd.robust.count, pgd.torch_robust.count, pgd.disagreements) == (2, 2, 2)
    assert survivors([outcome("pgd", [False, True, False], served_success=(False, False, True))]).tolist() == [
        True, True, False,
    ]  # fmt: skip


def test_survivors_are_those_of_the_first_budget_of_all_attacks() -> None:
    found = survivors(
        [
            outcome("wide", [True, True, True], eps=0.3),
            outcome("pgd", [True, False, False]),
            outcome("bpda", [False, True, False], view="surrogate"),
            outcome("ddn", [True, True, True], eps=None, distance=(0.2, 0.2, 0.2)),
        ]
    )
    assert found.tolist() == [False, False, True]


def test_the_figures_of_one_entry() -> None:
    item = outcome(
        "pgd",
        [True, True, False, True],
        correct=(False, True, True, True),
        served_correct=(False, True, True, True),
        relative=(0.0, 0.2, 7.0, 0.4),
        forward=(1, 2, 3, 6),
        backward=(0, 1, 2, 3),
        nonfinite=(0, 1, 0, 0),
        zero_gradient=(0, 1, 0, 2),
        decided_by=7,
    )
    figures = one_model(item)
    found = figures.entries[0]
    assert (found.entry, found.view, found.threat, found.protocol, found.norm, found.eps) == (
        "pgd", "exact", "white_box", "adaptive", "linf", 0.1,
    )  # fmt: skip
    assert (found.robust.count, found.robust.total, found.robust.value) == (1, 4, 0.25)
    assert (found.robust.low, found.robust.high) == wilson(1, 4)
    assert found.torch_robust == found.robust
    assert found.success_rate == pytest.approx(2 / 3)  # of the three that were classified correctly
    assert found.median_relative == pytest.approx(0.3)  # of 0, 0.2, 0.4 and infinity
    assert found.mean_relative == pytest.approx(0.3)  # of the two that were fooled
    assert (found.mean_forward, found.mean_backward) == (3.0, 1.5)
    assert (found.nonfinite, found.zero_gradient, found.disagreements) == (1, 2, 0)
    assert (figures.clean.count, figures.decided_by, found.minimises) == (3, 7, False)


def test_the_papers_mean_is_over_all_samples_and_leaves_out_what_is_not_finite() -> None:
    sizes = {"relative": (0.1, 0.3, math.inf, 0.8)}
    paper = outcome("paper/pgd", [True, False, True, False], eps=None, protocol="paper", **sizes)
    adaptive = outcome("ddn", [True, False, True, False], eps=None, **sizes)
    found = one_model(paper, adaptive).entries
    assert found[0].mean_relative == pytest.approx(0.4)
    assert found[1].mean_relative == pytest.approx(0.1)
    assert [item.minimises for item in found] == [False, True]
    assert one_model(outcome("pgd", [False, False])).entries[0].mean_relative == 0.0


def test_a_model_that_is_always_wrong_has_no_success_rate_to_speak_of() -> None:
    wrong = {"correct": (False, False), "served_correct": (False, False)}
    found = one_model(outcome("pgd", [True, True], **wrong)).entries[0]
    assert (found.success_rate, found.robust.value) == (0.0, 0.0)
    assert one_model(outcome("pgd", [True])).entries[0].success_rate == 1.0


def test_the_retrofit_is_compared_with_the_original_on_the_same_samples() -> None:
    old = [outcome("pgd", first(30, 40), model=ORIGINAL), outcome("wide", first(40, 40), model=ORIGINAL, eps=0.3)]
    new = [
        outcome("pgd", first(10, 40), model=RETROFIT, served_correct=(False,) * 2 + (True,) * 38),
        outcome("wide", first(40, 40), model=RETROFIT, eps=0.3, served_correct=(False,) * 2 + (True,) * 38),
    ]
    found = evaluation(*new, *old)
    assert [figures.model for figures in found.models] == [ORIGINAL, RETROFIT]
    by_name = {item.what: item for item in found.comparisons}
    assert list(by_name) == [
        "clean accuracy",
        "robust accuracy, exact gradient, linf 0.1",
        "robust accuracy, all attacks, linf 0.1",
        "robust accuracy, exact gradient, linf 0.3",
        "robust accuracy, all attacks, linf 0.3",
    ]
    clean = by_name["clean accuracy"]
    assert clean.difference == pytest.approx(-2 / 40)
    assert clean.low < clean.difference < clean.high
    robust = by_name["robust accuracy, all attacks, linf 0.1"]
    assert robust.difference == pytest.approx(20 / 40)  # 30 of 40 against 10 of 40
    assert robust.p_value == mcnemar(np.arange(40) >= 10, np.arange(40) >= 30) < 1e-4
    assert by_name["robust accuracy, all attacks, linf 0.3"].p_value == 1.0
    assert (found.samples, found.complete, found.minimal) == (40, True, ())


def test_one_model_has_nothing_to_be_compared_with() -> None:
    found = evaluation(outcome("pgd", [True, False], model=MODEL))
    assert (found.comparisons, found.minimal) == ((), ())


def test_minimal_perturbations_of_two_models_are_compared() -> None:
    sizes = {"eps": None, "norm": "l2"}
    old = outcome("ddn", [True] * 8, model=ORIGINAL, relative=(0.1,) * 8, **sizes)
    new = outcome("ddn", [True] * 8, model=RETROFIT, relative=(0.3,) * 8, **sizes)
    (found,) = evaluation(old, new).minimal
    assert (found.norm, found.samples) == ("l2", 8)
    assert found.ratio == pytest.approx(3.0)
    assert found.p_value == pytest.approx(2 / 2**8)
    assert [item.minimal[0].median_relative for item in evaluation(old, new).models] == [0.1, 0.3]


def test_of_an_unfinished_run_those_samples_count_on_which_everything_is_finished() -> None:
    short = outcome("b", [True, False], indices=(1, 2))
    found = evaluation(outcome("a", [False, False, True, True], indices=(0, 1, 2, 3)), short, samples=4)
    assert (found.samples, found.complete) == (2, False)
    assert [item.robust.count for item in found.models[0].entries] == [1, 1]
    record = run_record(entries=("a", "b"), models={"retrofit": "a" * 64}, samples=4)
    cut = finished(record, {"retrofit": {"a": outcome("a", [True] * 3), "b": short}})
    assert [item.indices for item in cut["retrofit"].values()] == [(1, 2), (1, 2)]


@pytest.mark.parametrize(
    "outcomes",
    [{}, {"retrofit": {}}, {"retrofit": {"a": outcome("a", [True]), "b": outcome("b", [True], indices=(1,))}}],
)
def test_nothing_finished_is_nothing_to_sum_up(outcomes: dict[str, dict[str, Outcome]]) -> None:
    record = run_record(entries=("a", "b"), models={"retrofit": "a" * 64}, samples=4)
    with pytest.raises(InputError, match="no sample is finished") as caught:
        evaluate(record, outcomes)
    assert "jr-onnx attack" in caught.value.hint


def test_the_table_has_a_row_of_all_models_for_clean_accuracy_and_every_worst_case() -> None:
    both = [
        item
        for model, count in ((RETROFIT, 10), (ORIGINAL, 30))
        for item in (
            outcome("pgd", first(count, 40), model=model),
            outcome("paper/pgd", first(count + 1, 40), model=model, eps=None, protocol="paper"),
        )
    ]
    found = evaluation(*both)
    rows = {row.name: row for row in accuracy_rows(found)}
    assert {name: [share.count for share in row.shares] for name, row in rows.items()} == {
        "clean accuracy": [40, 40],
        PAPER: [9, 29],
        "exact gradient, linf 0.1": [10, 30],
        "all attacks, linf 0.1": [10, 30],
    }
    assert [name for name, row in rows.items() if row.is_main] == ["all attacks, linf 0.1"]
    assert [row.difference for row in rows.values()] == list(found.comparisons)
    assert [row.difference for row in accuracy_rows(evaluation(both[0], both[1]))] == [None] * 4


def test_a_budget_that_only_one_model_was_attacked_with_is_not_compared() -> None:
    outcomes = by_model([outcome("pgd", [True, False], model=ORIGINAL), outcome("pgd", [True, False], model=RETROFIT)])
    outcomes[RETROFIT]["pgd"] = outcome("pgd", [True, False], model=RETROFIT, eps=0.2)
    record = run_record(models=dict.fromkeys(outcomes, "a" * 64), samples=2)
    assert [item.what for item in evaluate(record, outcomes).comparisons] == ["clean accuracy"]


def test_the_original_comes_first_and_other_models_in_their_order() -> None:
    found = evaluation(*(outcome("pgd", [True], model=model) for model in ("z", "b", ORIGINAL, "a")))
    assert [figures.model for figures in found.models] == [ORIGINAL, "z", "b", "a"]


def test_a_share_of_nothing_is_zero_and_unknown() -> None:
    assert share_of(np.zeros(0, dtype=bool)) == Share(0.0, 0.0, 1.0, 0, 0)


def test_every_model_is_judged_by_its_own_outcomes() -> None:
    plain, masked = [
        (
            outcome("pgd", first(20, 100), model=model),
            outcome("square", first(count, 100), model=model, view="black_box"),
        )
        for model, count in ((ORIGINAL, 10), (RETROFIT, 90))
    ]
    found = evaluation(*masked, *plain)
    assert [(item.model, item.verdict.model, item.verdict.masked) for item in found.models] == [
        (ORIGINAL, ORIGINAL, False), (RETROFIT, RETROFIT, True),
    ]  # fmt: skip
