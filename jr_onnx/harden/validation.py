"""What is measured after every epoch, on validation images: clean and robust accuracy, and overfitting to one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.data import ImageData
from jr_onnx.harden.batches import first_images
from jr_onnx.harden.craft import craft, random_start
from jr_onnx.harden.network import TrainedNetwork
from jr_onnx.harden.recipe import Recipe
from jr_onnx.records import Record
from jr_onnx.semantics import SiteKappa
from jr_onnx.torchnet.jump import SiteBackward

_PIECE = 128
_CLEAN_IMAGES = 2000
_SURROGATES = (
    SiteBackward.exact(),
    SiteBackward.straight_through(),
    SiteBackward.smooth(2.0),
    SiteBackward.smooth(5.0),
    SiteBackward.smooth(10.0),
)
_TRIED, _TRIED_STEPS = 128, 10


@dataclass(frozen=True, slots=True)
class EpochRow(Record):
    """One epoch.

    Attributes:
        epoch: Its number, from 1; 0 for the model before training.
        loss: Mean training loss; 0 before training.
        clean: Accuracy on validation images.
        robust: Accuracy on them under projected gradient descent in the budget.
        one_step: Accuracy under one step of the budget's length, which a network can learn to mislead.
        seconds: Wall time of the epoch.
        kappas: Site id -> learned kappa, or one for each channel.
        went_back: Whether most of the clean accuracy was lost, so that the training started over from the best
            weights before, at a lower learning rate.
        budget: Share of the budget that the attack in training had at its end.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.harden_epoch/1"
    epoch: int
    loss: float
    clean: float
    robust: float
    one_step: float
    seconds: float
    kappas: dict[str, SiteKappa]
    went_back: bool = False
    budget: float = 1.0


class Validation:
    """Validation images on a device, attacked in the same way after every epoch.

    Args:
        data: Labelled images; the first ones are attacked.
        recipe: Budget, steps and number of images.
        device: Where to compute.
    """

    def __init__(self, data: ImageData, recipe: Recipe, device: torch.device) -> None:
        pixels, labels = first_images(data, max(_CLEAN_IMAGES, recipe.validation))
        self._pixels, self._labels = pixels.to(device), labels.to(device)
        self._attacked = min(recipe.validation, len(labels))
        self._recipe = replace(recipe, method="pgd", steps=recipe.validation_steps)

    def measure(self, network: TrainedNetwork) -> tuple[float, float, float]:
        """Return clean accuracy, accuracy under attack, and accuracy under one step."""
        with torch.no_grad():
            clean = torch.cat(
                [self._right(network, self._pixels[part], part) for part in self._parts(len(self._pixels))]
            )
        robust = self.attacked(network, self._recipe, self._attacked) & clean[: self._attacked]
        single = self.attacked(network, replace(self._recipe, method="fgsm"), self._attacked)
        return float(clean.float().mean()), float(robust.float().mean()), float(single.float().mean())

    def classes(self, network: TrainedNetwork) -> int:
        """Return the number of logits."""
        with torch.no_grad():
            return network(self._pixels[:1]).shape[1]

    def attacked(self, network: TrainedNetwork, recipe: Recipe, count: int) -> Tensor:
        """Return which of the first images (count,) are classified as labelled after an attack."""
        found = []
        for part in self._parts(count):
            pixels, labels = self._pixels[part], self._labels[part]
            start = random_start(pixels, recipe, torch.Generator().manual_seed(part.start))
            moved = craft(network.attacked, pixels, labels, recipe, start)
            with torch.no_grad():
                found.append(self._right(network, moved, part))
        return torch.cat(found)

    def strongest_surrogate(self, network: TrainedNetwork) -> tuple[SiteBackward, str]:
        """Return the derivative of the jump with which an attack fools most, and what was measured."""
        recipe = replace(self._recipe, steps=_TRIED_STEPS)
        count = min(_TRIED, self._attacked)
        shares = []
        for backward in _SURROGATES:
            network.net.set_backward(backward)
            shares.append(float(self.attacked(network, recipe, count).float().mean()))
        best = min(range(len(shares)), key=shares.__getitem__)
        network.net.set_backward(_SURROGATES[best])
        measured = ", ".join(f"{way} {share:.0%}" for way, share in zip(_SURROGATES, shares, strict=True))
        return _SURROGATES[best], f"{_SURROGATES[best]} (accuracy under {_TRIED_STEPS} steps: {measured})"

    def _right(self, network: TrainedNetwork, pixels: Tensor, part: slice) -> Tensor:
        return network(pixels).argmax(1) == self._labels[part]

    @staticmethod
    def _parts(count: int) -> list[slice]:
        return [slice(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE)]


def overfits_one_step(rows: Sequence[EpochRow]) -> bool:
    """Return whether the last epoch shows catastrophic overfitting (Wong et al. 2020, section 5.4).

    The network has learned to mislead one step: accuracy under many steps is less than half of the best before, and
    that under one step is not lower.
    """
    if len(rows) < 2:
        return False
    *earlier, last = rows
    best = max(earlier, key=lambda row: row.robust)
    return last.robust < best.robust / 2 and last.one_step >= best.one_step
