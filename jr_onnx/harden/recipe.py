"""How a model is hardened: the method, its budget and its schedule, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from jr_onnx.errors import InputError, require_choice
from jr_onnx.records import Record
from jr_onnx.semantics import validate_kappa

Method = Literal["pgd", "trades", "fgsm"]
TrainingNorm = Literal["linf", "l2"]
Augmentation = Literal["auto", "none", "crop_flip"]
LearnKappa = Literal["no", "per-site", "per-channel"]
RAMP = 0.4
"""Share of the training in which the budget grows, for a model that needs it."""
NEEDS_RAMP = 0.1
"""A model that keeps less than this share of its clean accuracy under attack needs a ramp: its loss at the full budget
is so large that the first steps lead to a constant answer, from which no gradient leads back."""

STEP_SHARE = 2.5
"""Steps of PGD are this many budgets long together, so that every point of the ball can be reached (Madry et al.)."""


@dataclass(frozen=True, slots=True)
class Recipe(Record):
    """Everything that decides the trained weights, but for the model and the data.

    Attributes:
        eps: Budget in pixel scale [0, 1].
        norm: linf or l2.
        method: pgd (Madry et al. 2018: train on adversarial images alone), trades (Zhang et al. 2019: clean loss plus
            `beta` times the divergence of adversarial from clean predictions), fgsm (the paper's mixed batches, section
            4.1: the first part of each batch is adversarial, by one step).
        steps: Steps of the attack in training; 1 for fgsm.
        beta: Weight of robustness against clean accuracy, for trades.
        mixed: The share of a batch that is adversarial, for fgsm.
        epochs: Passes over the training images.
        batch: Images a step.
        rate: Highest learning rate of the one-cycle schedule.
        momentum: Of stochastic gradient descent (Nesterov).
        weight_decay: Of stochastic gradient descent, on weights alone.
        clip: Largest norm of a step's gradient, of matrices and kernels, of biases and scales, and of kappas.
        ramp: Share of the training in which the budget of its attack grows from 0 to `eps`, at the earliest; None for
            `RAMP` where the model needs it, see `ramp_for`.
        average: Decay of the running average of the weights, of which the result is made; 0 for the last weights.
        augmentation: none, crop_flip (shifts by up to an eighth, and mirrors), or auto: crop_flip for colour images.
        kappa: The jump of all sites that the model is trained with; None to train it as it is.
        learn_kappa: per-site to train the jumps too, from `kappa` on; per-channel to train one for each channel of a
            site.
        batch_statistics: Whether means and variances of BatchNormalization are estimated again after every epoch.
        patience: Epochs without a better robust accuracy on validation images before the training ends.
        validation: Validation images that are attacked after every epoch.
        validation_steps: Steps of that attack.
        seed: Random seed.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.harden_recipe/1"
    eps: float
    norm: TrainingNorm = "linf"
    method: Method = "pgd"
    steps: int = 7
    beta: float = 6.0
    mixed: float = 0.5
    epochs: int = 10
    batch: int = 128
    rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 1.0
    ramp: float | None = None
    average: float = 0.995
    augmentation: Augmentation = "auto"
    kappa: float | None = None
    learn_kappa: LearnKappa = "no"
    batch_statistics: bool = False
    patience: int = 5
    validation: int = 500
    validation_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a recipe that trains nothing, or that contradicts itself.

        Raises:
            InputError: A word or number means nothing.
        """
        require_choice("the method", self.method, get_args(Method))
        require_choice("the norm of the training", self.norm, get_args(TrainingNorm))
        require_choice("the augmentation", self.augmentation, get_args(Augmentation))
        require_choice("learn_kappa", self.learn_kappa, get_args(LearnKappa))
        positive = {
            "eps": self.eps, "the number of steps": self.steps, "the number of epochs": self.epochs,
            "the batch": self.batch, "the learning rate": self.rate, "the clip": self.clip,
            "the patience": self.patience,
            "the number of validation images": self.validation, "the steps of validation": self.validation_steps,
        }  # fmt: skip
        for what, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{what} is {value:g}, expected a positive number")
        shares = {"the momentum": self.momentum, "the average's decay": self.average, "the mixed share": self.mixed,
                  "the ramp": self.ramp or 0.0}  # fmt: skip
        for what, value in shares.items():
            may_be_one = what == "the mixed share"
            if not (0 <= value <= 1 and (may_be_one or value < 1)):
                raise InputError(
                    f"{what} is {value:g}, expected " + ("0 to 1" if may_be_one else "at least 0, and less than 1")
                )
        for what, value in {"beta": self.beta, "the weight decay": self.weight_decay}.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{what} is {value:g}, expected 0 or more")
        if self.kappa is not None:
            validate_kappa(self.kappa, "the kappa of the training")
        if self.learn_kappa != "no" and not self.kappa:
            found = "none is given" if self.kappa is None else "0 is given, which is no jump"
            raise InputError(
                f"kappas are learned from a first value above 0 on, and {found}",
                hint="Give --kappa too; jr-onnx tune looks for one",
            )

    @property
    def attack_steps(self) -> int:
        """Steps of the attack in training."""
        return 1 if self.method == "fgsm" else self.steps

    @property
    def step_size(self) -> float:
        """Length of a step, in pixel scale; for one step 1.25 budgets (Wong et al. 2020), from a random start."""
        return 1.25 * self.eps if self.attack_steps == 1 else STEP_SHARE * self.eps / self.attack_steps

    def ramp_for(self, clean: float, robust: float) -> float:
        """Return the ramp for a model with these accuracies on validation images before training."""
        if self.ramp is not None:
            return self.ramp
        return RAMP if robust < NEEDS_RAMP * clean else 0.0

    def within(self, share: float) -> Recipe:
        """Return the recipe with a share (0, 1] of the budget."""
        return self if share >= 1 else replace(self, eps=self.eps * share)

    def rate_at(self, share: float) -> float:
        """Return the learning rate after a share of all steps: linearly up over the first fifth, and down to 0."""
        rising = 0.2
        return self.rate * (share / rising if share < rising else (1 - share) / (1 - rising))
