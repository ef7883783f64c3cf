"""The verdict: measured on what is stored, once per point, and by nobody but the exact model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jr_onnx.attack import DeepFool, IteratedFGSM, TorchTarget, TrustRegion
from jr_onnx.attack.base import Attack, Problem
from jr_onnx.attack.history import JudgeHistory
from jr_onnx.attack.judging import Decision, Judge, KnownLogits
from jr_onnx.attack.objectives import aim_of
from jr_onnx.attack.pixels import PixelMap, Units
from jr_onnx.data import PRESETS, Preprocessing
from tests.attack.planted import several

NORMALISED = Preprocessing(mean=(0.3,), std=(0.25,))


class Counting(nn.Module):
    """Counts the images that a model is asked about without a gradient: those are for a verdict alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += 0 if torch.is_grad_enabled() else len(x)
        result: Tensor = self.model(x)
        return result


@pytest.mark.parametrize(
    "preprocessing",
    [PRESETS["mnist"], PRESETS["cifar10"], Preprocessing(range=(0.0, 255.0)), Preprocessing(range=(-1.0, 1.0))],
    ids=["mnist", "cifar10", "bytes", "signed"],
)
def test_snapped_values_are_stored_exactly(preprocessing: Preprocessing) -> None:
    mapping = PixelMap(preprocessing)
    channels = max(len(preprocessing.mean), 1)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(64, channels, 24, 24, generator=generator)
    pixels[:, :, :8] *= 1e-3  # dark ones: there many pixels have one value
    values = mapping.normalise(pixels)
    low, high = mapping.value_range
    values = (values + 0.01 * (high - low) * torch.randn(values.shape, generator=generator).sign()).clamp_(low, high)
    snapped = mapping.snap(values)
    assert torch.equal(mapping.normalise(mapping.denormalise(snapped)), snapped)
    assert float((snapped - values).abs().max()) <= 4e-7 * max(abs(low), abs(high))


@pytest.mark.parametrize("units", ["pixel", "paper"])
@pytest.mark.parametrize(
    "attack", [IteratedFGSM(eps=0.02, steps=200), DeepFool(steps=60)], ids=lambda attack: attack.name
)
def test_no_point_is_judged_twice(attack: Attack, units: Units) -> None:
    model, images, _ = several(count=12)
    labels = TorchTarget(model, NORMALISED).logits(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 5  # nobody attacks these
    counting = Counting(model)
    result = attack.run(TorchTarget(counting, NORMALISED).in_units(units), images, labels)
    assert result.success.all()
    assert result.correct.tolist() == [False] * 3 + [True] * 9
    assert counting.images == 1, "one image, for the number of classes"


@pytest.mark.parametrize("units", ["pixel", "paper"])
@pytest.mark.parametrize(
    "attack",
    [IteratedFGSM(eps=0.01, steps=5), DeepFool(steps=2), DeepFool(norm="l2", steps=2), TrustRegion(steps=9)],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_the_verdict_is_that_of_the_stored_images(attack: Attack, units: Units) -> None:
    model, images, labels = several(count=40)
    target = TorchTarget(model, NORMALISED)
    result = attack.run(target.in_units(units), images, labels, batch_size=16)
    again = target.logits(result.adversarials).argmax(1) != labels
    assert torch.equal(result.success, again)
    wrong = ~result.correct
    assert torch.equal(result.adversarials[wrong], images[wrong])
    assert int(result.forward[wrong].sum()) == int(result.iterations[wrong].sum()) == 0


class Boastful(IteratedFGSM):
    """Walks like its parent and returns another point than the one that was judged."""

    def _search(self, problem: Problem) -> Tensor:
        found = super()._search(problem)
        return problem.images + 0.0 * found


def test_another_point_than_the_judged_one_is_judged_again() -> None:
    model, images, labels = several(count=12)
    target = TorchTarget(model)
    assert IteratedFGSM(eps=0.02, steps=200).run(target, images, labels).success.all()
    result = Boastful(eps=0.02, steps=200).run(target, images, labels)
    assert torch.equal(result.success, ~result.correct)


def test_what_was_said_counts_only_for_the_last_point() -> None:
    images = torch.zeros(3, 1, 2, 2)
    history = JudgeHistory(images)
    assert not history.is_last(images).any()
    everyone = torch.arange(3)
    history.record(images, everyone, torch.eye(3))
    assert history.clean_logits is not None
    assert torch.equal(history.clean_logits, torch.eye(3))
    history.record(images[:1] + 1, everyone[:1], torch.ones(1, 3))
    assert history.is_last(images).tolist() == [False, True, True]
    assert torch.equal(history.clean_logits, torch.eye(3)), "the clean verdict stays"


def test_a_first_question_about_other_points_says_nothing_about_clean_ones() -> None:
    images = torch.zeros(2, 1, 2, 2)
    for x, rows in ((images + 1, torch.arange(2)), (images[:1], torch.arange(1)), (images, torch.tensor([1, 0]))):
        history = JudgeHistory(images)
        history.record(x, rows, torch.zeros(len(rows), 2))
        assert history.clean_logits is None


def test_known_logits_are_used_and_the_others_evaluated() -> None:
    model, images, labels = several(count=4)
    judge = Judge(TorchTarget(model), 0, None)
    aim = aim_of(labels, None)
    clean = judge.decide(images, aim)
    wrong = torch.zeros(1, 5)
    wrong[0, (int(labels[1]) + 1) % 5] = 1.0  # a lie, to see that it is taken
    moved = torch.tensor([False, True, True, False])
    known = KnownLogits(torch.tensor([1]), wrong)
    final = judge.decide_again(images, aim, clean, moved, known)
    assert bool(final.won[1])
    assert final.won.tolist()[2] == clean.won.tolist()[2]
    assert isinstance(final, Decision)
    assert final.logits is not None
    assert torch.equal(final.logits[2], TorchTarget(model).logits(images[2:3])[0])
