"""The parts of a training: crafted images, batches, the verdict of overfitting, the recommendation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from jr_onnx.data import ImageData
from jr_onnx.errors import InputError, KappaError
from jr_onnx.harden.batches import Batches
from jr_onnx.harden.craft import craft, random_start
from jr_onnx.harden.recipe import Recipe
from jr_onnx.harden.validation import EpochRow, overfits_one_step
from jr_onnx.torchnet.jump import LearnedKappa, SiteBackward, jump
from tests.harden.conftest import images


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", ["pgd", "fgsm"])
def test_crafted_images_keep_to_the_budget_and_raise_the_loss(norm: str, method: str) -> None:
    recipe = Recipe(eps=0.1, norm=norm, method=method)
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32))

    def network(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weight.t()

    data = images(40, 0)
    pixels, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    start = random_start(pixels, recipe, torch.Generator().manual_seed(0))
    found = craft(network, pixels, labels, recipe, start)
    for moved in (start, found):
        delta = (moved - pixels).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert float(size.max()) <= recipe.eps * (1 + 1e-5)  # sums of 64 float32 squares round by less
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert functional.cross_entropy(network(found), labels) > functional.cross_entropy(network(start), labels)


def test_an_epoch_is_the_same_from_any_step_on_and_differs_from_the_next() -> None:
    batches = Batches(images(210, 0), Recipe(eps=0.1, batch=50, augmentation="crop_flip"), torch.device("cpu"))
    whole = [(step, pixels, labels) for step, pixels, labels, _ in batches.epoch(3)]
    assert len(whole) == batches.steps == 4
    for step, pixels, labels, _ in batches.epoch(3, first=2):
        assert torch.equal(pixels, whole[step][1])
        assert torch.equal(labels, whole[step][2])
    assert not torch.equal(next(batches.epoch(4))[2], whole[0][2])


@pytest.mark.parametrize(
    ("augmentation", "channels", "margin"), [("crop_flip", 1, 2), ("auto", 3, 2), ("auto", 1, 0), ("none", 3, 0)]
)
def test_images_are_moved_by_an_eighth_at_most(augmentation: str, channels: int, margin: int) -> None:
    dots = np.zeros((128, channels, 16, 16), np.float32)
    dots[:, :, 8, 4] = 1.0
    recipe = Recipe(eps=0.1, batch=128, augmentation=augmentation)
    ((_, moved, _, _),) = Batches(ImageData.from_arrays(dots, [0] * 128), recipe, torch.device("cpu")).epoch(0)
    assert torch.equal(moved.sum((2, 3)), torch.ones(128, channels))
    rows, columns = moved.amax((1, 3)).argmax(1), moved.amax((1, 2)).argmax(1)
    assert set(rows.tolist()) == set(range(8 - margin, 9 + margin))
    sides = (4, 11) if margin else (4,)  # 11 is where the mirror image has it
    assert set(columns.tolist()) == {side + step for side in sides for step in range(-margin, margin + 1)}


@pytest.mark.parametrize(
    ("robust", "one_step", "caught"),
    [((0.6, 0.62), (0.7, 0.72), False), ((0.6, 0.1), (0.7, 0.95), True), ((0.6, 0.2), (0.7, 0.3), False)],
)
def test_overfitting_to_one_step_is_told_from_getting_worse(
    robust: tuple[float, float], one_step: tuple[float, float], caught: bool
) -> None:
    rows = [EpochRow(at, 1.0, 0.9, robust[at], one_step[at], 0.0, {}) for at in range(2)]
    assert overfits_one_step(rows) is caught


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"eps": 0.0}, InputError), ({"eps": math.nan}, InputError), ({"rate": -1.0}, InputError),
        ({"average": 1.0}, InputError), ({"method": "trade"}, InputError), ({"norm": "l1"}, InputError),
        ({"kappa": -1.0}, KappaError), ({"beta": -1.0}, InputError), ({"ramp": 1.0}, InputError),
        ({"kappa": 0.0, "learn_kappa": "per-site"}, InputError),
    ],
)  # fmt: skip
def test_a_recipe_that_means_nothing_is_refused(change: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        Recipe(**{"eps": 0.1, **change})


def test_the_rate_rises_and_falls_to_nothing() -> None:
    recipe = Recipe(eps=0.1, rate=0.4)
    assert [recipe.rate_at(share) for share in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.2, 0.4, 0.2, 0])


def test_the_derivative_of_a_learned_kappa_is_the_published_estimate() -> None:
    kappa = torch.tensor(1.0, requires_grad=True)
    z = torch.tensor([0.7, 0.9, 1.1, 1.3, 3.0], requires_grad=True)
    result = jump(z, LearnedKappa(kappa, 0.5), 2.0, SiteBackward.exact())
    assert result.tolist() == pytest.approx([0, 0, 1.1, 1.3, 2.0])
    result.backward(torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0]))
    assert kappa.grad is not None
    assert float(kappa.grad) == -(1.0 / 0.5) * (2.0 + 3.0)  # the two within a quarter of kappa
    assert z.grad is not None
    assert z.grad.tolist() == [0, 0, 3, 5, 0]
