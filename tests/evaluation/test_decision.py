"""Original against retrofit by what the attacker knows, and whether to deploy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jr_onnx.evaluation.decision import AttackerRow, attacks_by_attacker, by_attacker, kappa_range, recommendation
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import mcnemar, paired_difference
from jr_onnx.evaluation.summary import Evaluation
from tests.evaluation.builders import by_model, evaluation, first, outcome

UNAWARE, QUERIES, EVERYTHING = (
    "does not know the jump: has the original's weights",
    "can only query the model",
    "knows everything",
)


def attackers(*outcomes: Outcome, **changes: Any) -> dict[str, list[str]]:
    found = attacks_by_attacker(evaluation(*outcomes, **changes), by_model(outcomes)["retrofit"])
    return {attacker: [item.entry for item in members] for attacker, members in found.items()}


def rows(*outcomes: Outcome, **changes: Any) -> tuple[Evaluation, tuple[AttackerRow, ...]]:
    found = evaluation(*outcomes, **changes)
    return found, by_attacker(found, by_model(outcomes))


def pair(original: int, retrofit: int, total: int = 100) -> list[Outcome]:
    """PGD fools so many samples of each model."""
    return [
        outcome("pgd", first(original, total), model="original"),
        outcome("pgd", first(retrofit, total), model="retrofit"),
    ]


def said(*outcomes: Outcome, **changes: Any) -> str:
    return recommendation(*rows(*outcomes, **changes))


def test_who_can_run_an_attack() -> None:
    everything = [
        outcome("pgd", [True]),
        outcome("transfer", [True], view="transfer", spec={"source_kappa": 0.0}),
        outcome("scaled", [True], view="transfer", spec={"source_kappa_multiple": 0.0}),
        outcome("half", [True], view="transfer", spec={"source_kappa_multiple": 0.5, "source_kappa": 0.5}),
        outcome("square", [True], view="black_box"),
        outcome("fmn", [True], eps=None),
        outcome("wide", [True], eps=0.4),
        outcome("l2", [True], norm="l2"),
        outcome("ddn", [True], norm="l2", eps=None),
        outcome("paper/pgd", [True], protocol="paper", eps=None),
    ]
    assert attackers(*everything) == {
        UNAWARE: ["transfer", "scaled"],
        QUERIES: ["square"],
        EVERYTHING: ["pgd", "transfer", "scaled", "half", "square", "fmn"],
    }
    assert attackers(everything[0]) == {EVERYTHING: ["pgd"]}


def test_an_attacker_wins_with_any_of_its_attacks_and_minimal_ones_must_fit_into_the_budget() -> None:
    both = [
        item
        for model in ("original", "retrofit")
        for item in (
            outcome("pgd", [True, False, False, False], model=model),
            outcome("fmn", [True] * 4, eps=None, distance=(0.3, 0.05, 0.3, 0.3), model=model),
            outcome("square", [False, False, model == "original", False], view="black_box", model=model),
        )
    ]
    _, (queries, strongest) = rows(*both)
    assert (queries.attacker, queries.entries) == (QUERIES, ("square",))
    assert {label: share.count for label, share in queries.shares.items()} == {"original": 3, "retrofit": 4}
    assert (strongest.attacker, strongest.entries) == (EVERYTHING, ("pgd", "fmn", "square"))
    assert {label: share.count for label, share in strongest.shares.items()} == {"original": 1, "retrofit": 2}
    assert strongest.difference is not None
    assert strongest.difference.what == "robust accuracy, knows everything"
    assert strongest.difference.difference == pytest.approx(0.25)


def test_the_difference_is_retrofit_minus_original_on_the_same_samples() -> None:
    _, (row,) = rows(*pair(60, 20))
    found = row.difference
    assert found is not None
    new, old = np.arange(100) >= 20, np.arange(100) >= 60
    assert (found.difference, found.low, found.high) == paired_difference(new, old)
    assert found.p_value == mcnemar(new, old)


def test_an_attacker_needs_an_attack_on_every_model_and_a_difference_both() -> None:
    lonely = outcome("square", first(1, 100), view="black_box", model="retrofit")
    known = evaluation(*pair(60, 20))
    outcomes = by_model(pair(60, 20))
    outcomes["retrofit"]["square"] = lonely
    assert [row.attacker for row in by_attacker(known, outcomes)] == [EVERYTHING]
    alone = {"retrofit": outcomes["retrofit"]}
    (queries, strongest) = by_attacker(known, alone)
    assert (queries.difference, strongest.difference) == (None, None)
    assert by_attacker(known, {}) == ()


@pytest.mark.parametrize(
    ("kappas", "expected"),
    [
        ({}, ""),
        ({"a": 0.5, "b": 0.5}, "0.5"),
        ({"a": 0.5, "b": 0.25, "c": 1.0}, "0.25 to 1"),
        ({"a": (0.125, 2.0), "b": 0.5}, "0.125 to 2"),
    ],
)
def test_the_range_of_kappa(kappas: dict[str, Any], expected: str) -> None:
    assert kappa_range(evaluation(*pair(1, 1, 2), kappas=kappas)) == expected


def test_a_significant_gain_is_recommended_with_its_cost() -> None:
    right = (False,) * 2 + (True,) * 98
    old, new = pair(60, 20)
    costly = outcome("pgd", first(20, 100), correct=right, served_correct=right)
    assert said(old, costly) == (
        "Kappa 0.5 helps: 40 points more robust than the original against an attacker who knows it "
        "(95% interval +31 to +50), at -2.0 points of clean accuracy."
    )
    alone = outcome("pgd", [False] * 100, correct=right[::-1], served_correct=(False,) * 50 + (True,) * 50)
    assert "100 points more robust" in said(*pair(100, 0))
    assert "to +100)" in said(*pair(100, 0))
    assert "interval -100 to" in said(*pair(0, 100))
    assert said(outcome("pgd", [True] * 100, model="original"), alone).endswith("at -50.0 points of clean accuracy.")
    unmeasured, found = rows(old, new)
    unmeasured = Evaluation(unmeasured.run, unmeasured.models, (), (), 100, True)
    assert recommendation(unmeasured, found).endswith("(95% interval +31 to +50).")
    assert said(old, new, kappas={}).startswith("This model helps: 40 points")


def test_a_significant_loss_and_no_significant_difference_are_not_recommended() -> None:
    assert said(*pair(20, 60), kappas={"a": 0.5, "b": 1.0}).startswith(
        "Do not deploy kappa 0.5 to 1: 40 points less robust than the original against an attacker who knows it (95%"
    )
    assert said(*pair(20, 22)) == (
        "Do not expect protection from kappa 0.5: against an attacker who knows it, retrofit and original do not "
        "differ significantly (95% interval -7 to +2 points)."
    )
    assert "Do not expect" in said(*pair(25, 20)), "p = 0.0625"
    assert "helps: 6 points" in said(*pair(26, 20)), "p = 0.03125"


def test_one_point_is_no_plural() -> None:
    assert "helps: 1 point more" in said(*pair(60, 52, 800))
    assert "1 point less" in said(*pair(52, 60, 800))
    assert "helps: 2 points" in said(*pair(64, 52, 800))


def test_what_cannot_be_recommended_is_said() -> None:
    assert said(outcome("paper/pgd", [True], protocol="paper", eps=None)).startswith("No recommendation: no attack")
    assert said(outcome("pgd", first(27, 100), model="model")) == (
        "73 of 100 images survive all attacks within linf 0.1; there is no retrofit to compare with."
    )
    alone = outcome("square", first(5, 20), model="model", view="black_box")
    assert said(alone).startswith("15 of 20 images survive all attacks that only query the model within linf 0.1;")
    assert said(*pair(12, 10, 40)) == (
        "No recommendation: 40 images are too few; against an attacker who knows it, retrofit and original do "
        "not differ significantly (95% interval -4 to +17 points)."
    )
    assert said(*pair(60, 20), samples=250) == "No recommendation yet: 100 of 250 samples are evaluated."


def test_an_attacker_whose_knowledge_no_attack_used_is_not_claimed() -> None:
    def queries(original: int, retrofit: int) -> list[Outcome]:
        return [replace(item, view="black_box", entry="square") for item in pair(original, retrofit)]

    assert attackers(*queries(1, 1)) == {QUERIES: ["square"]}
    assert said(*queries(20, 60)) == (
        "Do not deploy kappa 0.5: 40 points less robust than the original against an attacker who can only query the "
        "model (95% interval -50 to -31); one who knows it was not tried."
    )
    assert said(*queries(60, 20)).startswith("Kappa 0.5 helps: 40 points more robust")
    assert said(*queries(60, 20)).endswith("; one who knows it was not tried.")


def test_random_kappas_are_named_by_their_mean() -> None:
    old, new = pair(20, 60)
    drawn = replace(new, decided_by=2)
    assert said(old, drawn).startswith("Do not deploy random kappas of mean 0.5: 40 points less robust")
    assert said(*pair(60, 20)[:1], replace(pair(60, 20)[1], decided_by=32)).startswith(
        "Random kappas of mean 0.5 help: 40"
    )
    # Where the original draws numbers itself, draws say nothing about kappa.
    assert said(replace(old, decided_by=32), drawn).startswith("Do not deploy kappa 0.5:")


def test_sixty_images_are_enough_to_miss_a_difference_of_a_tenth() -> None:
    assert said(*pair(25, 24, 60)).startswith("Do not expect protection")
    assert said(*pair(25, 24, 59)).startswith("No recommendation: 59 images are too few")
