"""The images that an evaluation keeps for its report: chosen, attacked again, measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jr_onnx.attack.suite.evaluate import evaluate_robustness
from jr_onnx.attack.suite.run import Runner
from jr_onnx.evaluation.choosing import choose
from jr_onnx.evaluation.store import Store, merged
from jr_onnx.evaluation.summary import finished
from tests.attack.suite.small import handful, images, patched, request


def test_the_kept_images_are_what_the_evaluation_found(tmp_path: Path) -> None:
    wanted = request(tmp_path, eps=0.2, keep=True)
    with patched(handful):
        evaluation = evaluate_robustness(wanted)
    store = Store(wanted.out)
    kept, outcomes = store.examples(), finished(*merged([wanted.out]))
    assert kept is not None
    assert tuple(example.choice for example in kept.table.examples) == choose(evaluation, outcomes)
    assert kept.table.class_names == ("a", "b", "c")
    shown = {(example.choice.attacker, example.choice.model) for example in kept.table.examples}
    attackers = ("can only query the model", "knows everything")
    assert shown == {(attacker, model) for attacker in attackers for model in ("original", "retrofit")}
    assert {example.fooled for example in kept.table.examples} == {True, False}
    made = {
        (found.model, found.entry, index): (image, found, row)
        for found, batch in store.adversarials()
        for row, (index, image) in enumerate(zip(found.indices, batch, strict=True))
    }
    for example, clean, adversarial in zip(kept.table.examples, kept.clean, kept.adversarial, strict=True):
        image, found, row = made[example.choice.model, example.choice.entry, example.choice.index]
        assert np.array_equal(clean, images().images[example.choice.index])
        assert np.array_equal(adversarial, image), "the attack finds on a few images what it found on all"
        assert (example.fooled, example.label) == (found.served_success[row], found.labels[row])
        assert example.distance == pytest.approx(found.distance[row], abs=1e-7)
        assert (example.answer != example.label) == example.fooled
        assert example.other_answer is not None


def test_an_older_folder_gets_its_pictures_and_nothing_else_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(tmp_path, eps=0.2)
    with patched(handful):
        first = evaluate_robustness(wanted)
        before = {name: (wanted.out / name).read_bytes() for name in ("examples.npz", "examples.json")}
        for name in before:
            (wanted.out / name).unlink()
        asked: list[int] = []
        honest = Runner.outcome
        monkeypatch.setattr(
            Runner, "outcome", lambda self, *what: (asked.append(len(self.indices)), honest(self, *what))[1]
        )
        assert evaluate_robustness(wanted) == first
        assert 0 < sum(asked) <= 24, "two attackers, two models, three images of each kind"
        assert (wanted.out / "examples.json").read_bytes() == before["examples.json"]
        asked.clear()
        assert evaluate_robustness(wanted) == first
        assert asked == []


def test_a_model_alone_has_examples_without_another_answer(tmp_path: Path) -> None:
    wanted = request(tmp_path, plan=None, eps=0.2)
    with patched(handful):
        evaluate_robustness(wanted)
    kept = Store(wanted.out).examples()
    assert kept is not None
    assert {example.choice.model for example in kept.table.examples} == {"model"}
    assert {example.other_answer for example in kept.table.examples} == {None}
