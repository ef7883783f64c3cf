"""Which images a report shows, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jr_onnx.errors import InputError
from jr_onnx.evaluation.choosing import choose
from jr_onnx.evaluation.examples import Choice, Example, ExampleSet, ExampleTable, joined
from jr_onnx.evaluation.store import Store
from jr_onnx.evaluation.summary import evaluate
from tests.evaluation.builders import outcome, run_record

EVERYTHING = "knows everything"


def chosen(*members: object, **changes: object) -> dict[tuple[str, str], list[tuple[int, str]]]:
    entries = {item.entry: item for item in members}  # type: ignore[attr-defined]
    count = len(next(iter(entries.values())))
    record = run_record(entries=tuple(entries), samples=count, **changes)
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for choice in choose(evaluate(record, {"retrofit": entries}), {"retrofit": entries}):
        found.setdefault((choice.attacker, choice.kind), []).append((choice.index, choice.entry))
    return found


def test_the_least_perturbation_of_any_attack_ranks_the_images() -> None:
    pgd = outcome("pgd", [True] * 6 + [False] * 2, distance=(0.1,) * 8)
    fmn = outcome("fmn", [True] * 8, eps=None, distance=(0.09, 0.02, 0.3, 0.04, 0.08, 0.07, 0.5, 0.2))
    found = chosen(pgd, fmn)
    assert found[EVERYTHING, "least robust"] == [(1, "fmn"), (3, "fmn"), (5, "fmn")]
    # The attack with a budget found image 2 within 0.1, where the minimising one needed 0.3.
    assert found[EVERYTHING, "most robust"] == [(6, "fmn"), (7, "fmn"), (2, "pgd")]


def test_images_that_none_fools_are_the_hardest_and_the_strongest_attacker_orders_them() -> None:
    square = outcome("square", [True] * 2 + [False] * 4, view="black_box", distance=(0.1,) * 6)
    fmn = outcome("fmn", [True] * 6, eps=None, distance=(0.05, 0.04, 0.2, 0.5, 0.3, 0.4))
    found = chosen(square, fmn)
    query = "can only query the model"
    # Both were fooled with the whole budget: the one that the strongest attacker fools more easily comes first.
    assert found[query, "least robust"] == [(1, "square"), (0, "square")]
    assert found[query, "most robust"] == [(3, "square"), (5, "square"), (4, "square")]


def test_only_images_classified_correctly_count_and_none_is_shown_twice() -> None:
    right = (True, False, True, True, True)
    pgd = outcome("pgd", [True] * 5, distance=(0.1, 0.0, 0.1, 0.1, 0.1), served_correct=right, correct=right)
    found = chosen(pgd)
    shown = [index for members in found.values() for index, _ in members]
    assert sorted(shown) == [0, 2, 3, 4]
    wrong = outcome("pgd", [True] * 3, correct=(False,) * 3, served_correct=(False,) * 3)
    assert chosen(wrong) == {}


def test_every_model_has_images_of_its_own() -> None:
    sizes = {
        "original": (0.05, 0.02, 0.04, 0.03, 0.08, 0.07, 0.06),
        "retrofit": (0.02, 0.03, 0.05, 0.08, 0.01, 0.04, 0.09),
    }
    outcomes = {
        model: {"fmn": outcome("fmn", [True] * 7, model=model, eps=None, distance=found)}
        for model, found in sizes.items()
    }
    record = run_record(entries=("fmn",), samples=7, models={"original": "a" * 64, "retrofit": "b" * 64})
    found: dict[tuple[str, str], list[int]] = {}
    for choice in choose(evaluate(record, outcomes), outcomes):
        assert choice.attacker == EVERYTHING
        found.setdefault((choice.model, choice.kind), []).append(choice.index)
    assert list(found.items()) == [
        (("original", "least robust"), [1, 3, 2]), (("original", "most robust"), [4, 5, 6]),
        (("retrofit", "least robust"), [4, 0, 1]), (("retrofit", "most robust"), [6, 3, 2]),
    ]  # fmt: skip


def test_an_image_that_none_fooled_is_shown_with_the_first_attack_that_has_a_budget() -> None:
    fmn, square, pgd = (outcome(name, [True, False], eps=eps) for name, eps in (("fmn", None), ("b", 0.1), ("c", 0.1)))
    assert chosen(fmn, square, pgd)[EVERYTHING, "most robust"] == [(1, "b")]
    assert chosen(fmn)[EVERYTHING, "most robust"] == [(1, "fmn")]


def test_attacks_in_another_norm_and_the_papers_choose_nothing() -> None:
    other = outcome("ddn", [True] * 4, eps=None, norm="l2")
    paper = outcome("paper/pgd", [True] * 4, protocol="paper", eps=None)
    assert chosen(other, paper) == {}


def example_set(*indices: int, shape: tuple[int, ...] = (1, 4, 4)) -> ExampleSet:
    examples = tuple(
        Example(Choice(EVERYTHING, "retrofit", "least robust", index, "pgd"), 0, 1, 0, True, "linf", 0.1)
        for index in indices
    )
    images = np.stack([np.full(shape, index / 100, np.float32) for index in indices])
    return ExampleSet(ExampleTable(("a", "b"), examples), images, images + np.float32(0.1))


def test_examples_survive_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.examples() is None
    kept = example_set(3, 7)
    store.put_examples(kept)
    found = store.examples()
    assert found is not None
    assert found.table == kept.table
    assert np.array_equal(found.clean, kept.clean)
    assert np.array_equal(found.adversarial, kept.adversarial)
    (tmp_path / "examples.npz").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="cannot read the adversarial examples"):
        store.examples()


def test_images_must_belong_to_the_table() -> None:
    kept = example_set(3, 7)
    with pytest.raises(InputError, match=r"for 2 examples, expected \(2, C, H, W\) twice"):
        ExampleSet(kept.table, kept.clean[:1], kept.adversarial[:1])
    with pytest.raises(InputError, match=r"found images of shapes \(2, 1, 4, 4\) and \(2, 1, 4, 2\)"):
        ExampleSet(kept.table, kept.clean, kept.adversarial[..., :2])
    with pytest.raises(InputError, match=r"found images of shapes \(2, 4, 4\)"):
        ExampleSet(kept.table, kept.clean[:, 0], kept.adversarial[:, 0])


def test_shards_are_joined_and_choices_keep_their_order() -> None:
    whole = joined([example_set(1, 4), example_set(2)])
    assert whole is not None
    wanted = [Choice(EVERYTHING, "retrofit", "least robust", index, "pgd") for index in (2, 9, 1)]
    found = whole.chosen(wanted)
    assert [item.choice.index for item in found.table.examples] == [2, 1]
    assert found.table.class_names == ("a", "b")
    assert found.clean[:, 0, 0, 0].tolist() == pytest.approx([0.02, 0.01])
    alone = joined([example_set(5)])
    assert alone is not None
    assert alone.table == example_set(5).table
    assert joined([]) is None
    with pytest.raises(InputError, match="differ in shape"):
        joined([example_set(1), example_set(2, shape=(3, 4, 4))])
