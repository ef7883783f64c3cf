"""Outcomes survive JSON and merge by sample."""

from __future__ import annotations

import json
import math

import pytest

from jr_onnx.errors import InputError
from jr_onnx.evaluation.outcome import COLUMNS, Outcome, common, merge, select
from tests.evaluation.builders import first, outcome


def test_round_trip_keeps_infinities() -> None:
    item = outcome(
        "pgd", first(1, 3), distance=(0.1, math.inf, math.nan), spec={"name": "pgd", "steps": 40, "eps": 0.1}
    )
    back = Outcome.from_json(json.loads(json.dumps(item.to_json())))
    assert back.distance[:2] == item.distance[:2]
    assert math.isnan(back.distance[2])
    assert back.spec == item.spec


def test_merge_orders_by_sample_and_does_not_depend_on_the_cut() -> None:
    whole = outcome("pgd", first(4, 9))
    parts = [
        Outcome.from_json(
            {**whole.to_json(), **{name: [list(getattr(whole, name))[row] for row in rows] for name in COLUMNS}}
        )
        for rows in ([8, 2, 4], [0, 1, 3], [5, 6, 7])
    ]
    assert merge(parts) == whole


def test_merge_refuses_another_budget_and_repeated_samples() -> None:
    with pytest.raises(InputError, match=r"eps is 0\.1 and 0\.2"):
        merge([outcome("pgd", [True]), outcome("pgd", [True], eps=0.2, indices=(1,))])
    with pytest.raises(InputError, match="outcomes of pgd cannot be merged: entry is 'pgd' and 'apgd'"):
        merge([outcome("pgd", [True]), outcome("apgd", [True], indices=(1,))])
    with pytest.raises(InputError, match="appears twice"):
        merge([outcome("pgd", [True]), outcome("pgd", [True])])
    with pytest.raises(InputError, match="no outcome"):
        merge([])


def test_columns_must_agree_and_pairs_need_the_same_samples() -> None:
    with pytest.raises(InputError, match="differ in length"):
        outcome("pgd", [True], correct=(True, False))
    with pytest.raises(InputError, match="cannot be paired"):
        common([outcome("a", [True]), outcome("b", [True], indices=(7,))])
    with pytest.raises(InputError, match="c and a were run on different samples") as caught:
        common([outcome("a", [True]), outcome("b", [True]), outcome("c", [True], indices=(7,))])
    assert "Merge all shards" in caught.value.hint


def test_an_already_misclassified_sample_was_not_fooled() -> None:
    item = outcome("pgd", [True, True], correct=(False, True))
    assert item.fooled.tolist() == [False, True]


def test_a_minimal_attack_counts_within_a_budget_and_another_one_anyway() -> None:
    sizes = (0.1, 0.2, 0.0, 0.05)
    minimal = outcome(
        "ddn", [True, True, True, False], eps=None, distance=sizes, served_correct=(True, True, False, True)
    )
    assert minimal.robust_within(0.1).tolist() == [False, True, False, True], "a perturbation of the budget's size fits"
    assert minimal.robust_within(math.nextafter(0.1, 0)).tolist() == [True, True, False, True]
    assert minimal.robust_within(None).tolist() == [False, False, False, True]
    assert outcome("pgd", [True, False], eps=0.5).robust_within(0.1).tolist() == [False, True]


def test_samples_and_counts_lie_in_the_range_of_their_sums() -> None:
    assert outcome("pgd", [True], indices=(2**62,), forward=(2**62,)).forward == (2**62,)
    for name in ("indices", "iterations", "forward", "backward", "nonfinite", "zero_gradient"):
        for odd in (-1, 2**62 + 1):
            with pytest.raises(InputError, match=rf"outcome pgd: {name} holds {odd}, expected 0 to {2**62}"):
                outcome("pgd", [True], **{name: (odd,)})


def test_a_selection_keeps_the_rows_of_its_samples_in_every_column() -> None:
    whole = outcome(
        "pgd", [True, False, True], indices=(4, 7, 9), labels=(1, 2, 3), distance=(0.1, 0.2, 0.3), forward=(5, 6, 7)
    )
    found = select(whole, {9, 4, 100})
    assert (found.indices, found.labels, found.success) == ((4, 9), (1, 3), (True, True))
    assert (found.distance, found.forward, found.entry) == ((0.1, 0.3), (5, 7), "pgd")
    assert select(whole, {4, 7, 9}) == whole
    assert len(select(whole, set())) == 0


def test_torch_and_the_served_file_disagree_on_a_sample_once() -> None:
    item = outcome(
        "pgd", [True, True, False, True], correct=(True, False, True, True),
        served_correct=(True, True, True, True), served_success=(True, False, True, True),
    )  # fmt: skip
    assert item.disagreements == 2
