"""How each network is trained: the paper's protocol (section 4.1) for its networks, a short one for the digits.

The protocol: stochastic gradient descent with momentum 0.9 and weight decay 5e-4, batches of 128, incomplete
batches dropped, the weights of the last epoch kept. The rate of the plain networks starts at 0.02 and is divided
by 5 three times, that of the residual ones starts at 0.1 and is divided by 10. A robust network sees mixed
batches: FGSM images in the place of the first part of each batch (`batches.mix_adversarial`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jr_onnx.errors import InputError
from jr_onnx.records import Record
from models.registry import entry

Optimizer = Literal["sgd", "adamw"]
Augmentation = Literal["none", "shift", "crop_flip"]


@dataclass(frozen=True, slots=True)
class Recipe(Record):
    """Everything that decides the weights, but for the data.

    Attributes:
        model: Name in `models.registry`.
        epochs: Passes over the training data.
        rate: First learning rate.
        decay_epochs: Before each of these epochs (counted from 0) the rate is multiplied by `decay_factor`.
        decay_factor: See `decay_epochs`.
        batch: Images a step.
        optimizer: sgd (momentum 0.9) or adamw (decoupled weight decay).
        weight_decay: Of the optimiser.
        augmentation: shift: by up to one pixel; crop_flip: by up to four pixels, and mirrored half of the time.
        adversarial_fraction: This part of each batch is replaced by FGSM images; 0 trains on clean images alone.
        adversarial_eps: Step of FGSM in units of the normalised input, as the paper gives it.
        seed: Of the first weights, the order of the images, dropout and augmentation.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.training_recipe/1"
    model: str
    epochs: int
    rate: float
    decay_epochs: tuple[int, ...]
    decay_factor: float
    batch: int = 128
    optimizer: Optimizer = "sgd"
    weight_decay: float = 5e-4
    augmentation: Augmentation = "none"
    adversarial_fraction: float = 0.0
    adversarial_eps: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse a recipe that trains nothing.

        Raises:
            InputError: A number is out of its range.
        """
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0:
            raise InputError(
                f"found {self.epochs} epochs, batches of {self.batch} and a rate of {self.rate}, "
                "expected positive numbers"
            )
        if not 0 <= self.adversarial_fraction <= 1 or self.adversarial_eps < 0:
            raise InputError(
                f"found an adversarial fraction of {self.adversarial_fraction} and eps {self.adversarial_eps}, "
                "expected a fraction from 0 to 1 and eps >= 0"
            )

    def rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.rate * self.decay_factor ** sum(epoch >= border for border in self.decay_epochs)


_PLAIN = Recipe("lenet_like", epochs=90, rate=0.02, decay_epochs=(30, 60, 80), decay_factor=0.2)
_RESIDUAL = Recipe(
    "resnet20", epochs=120, rate=0.1, decay_epochs=(30, 60, 90), decay_factor=0.1, augmentation="crop_flip"
)
_DIGITS = Recipe(
    "digits_cnn",
    epochs=60,
    rate=3e-3,
    decay_epochs=(35, 50),
    decay_factor=0.2,
    batch=64,
    optimizer="adamw",
    weight_decay=1e-2,
    augmentation="shift",
)
_BASE = {
    "digits_cnn": _DIGITS,
    "digits_mlp": replace(_DIGITS, model="digits_mlp", epochs=100, decay_epochs=(60, 85), augmentation="none"),
    "lenet_like": _PLAIN,
    "alex_like": replace(_PLAIN, model="alex_like", augmentation="crop_flip"),
    "wide_resnet": replace(_RESIDUAL, model="wide_resnet"),
    "mobilenet_v2": replace(_RESIDUAL, model="mobilenet_v2"),
    "resnet20": _RESIDUAL,
}
# Part of the batch and FGSM step, in units of the normalised input (paper, section 4.1; eps of CIFAR-10 as in the
# authors' protocol, 0.031, where the paper's text rounds to 0.03). The digits' pixels run from 0 to 1.
_ADVERSARIAL = {"mnist": (0.3, 0.3), "cifar10": (0.6, 0.031), "digits": (0.3, 0.1)}


def recipe(model: str, *, robust: bool = False) -> Recipe:
    """Return the recipe of a network.

    Args:
        model: Name in `models.registry`.
        robust: Train on mixed batches of clean and adversarial images.

    Raises:
        InputError: There is no such network.
    """
    data = entry(model).data
    base = _BASE[model]
    if not robust:
        return base
    fraction, eps = _ADVERSARIAL[data]
    if model == "alex_like":  # the one network whose robust schedule differs
        base = replace(base, epochs=120, decay_epochs=(30, 60, 90))
    return replace(base, adversarial_fraction=fraction, adversarial_eps=eps)
