"""How each network is trained: the paper's protocol (section 4.1), a one-cycle schedule, a short one for the digits.

The paper's protocol: stochastic gradient descent with momentum 0.9 and weight decay 5e-4, batches of 128, incomplete
batches dropped, the weights of the last epoch kept. The rate of the plain networks starts at 0.02 and is divided
by 5 three times, that of the residual ones starts at 0.1 and is divided by 10. A robust network sees mixed
batches: FGSM images in the place of the first part of each batch (`batches.mix_adversarial`).

The one-cycle schedule (Smith and Topin 2017) raises the rate to a peak and lowers it to 0, however many epochs there
are: batches of 512, Nesterov's momentum, no weight decay on biases and normalisation. It is the default of the
CIFAR-10 networks, which take it an eighth to a third of the paper's epochs; the others train in minutes as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jr_onnx.errors import InputError
from jr_onnx.records import Record
from models.registry import entry

Optimizer = Literal["sgd", "adamw"]
Augmentation = Literal["none", "shift", "crop_flip"]
Schedule = Literal["paper", "one-cycle"]
Precision = Literal["float32", "bfloat16"]
# The one-cycle rate starts at this part of its peak.
_FIRST_RATE = 0.05


@dataclass(frozen=True, slots=True)
class Recipe(Record):
    """Everything that decides the weights, except the data.

    Attributes:
        model: Name in `models.registry`.
        epochs: Passes over the training data.
        rate: First learning rate; with the one-cycle schedule the highest.
        decay_epochs: Before each of these epochs (counted from 0) the rate is multiplied by `decay_factor`.
        decay_factor: See `decay_epochs`.
        batch: Images a step.
        optimizer: sgd (momentum 0.9) or adamw (decoupled weight decay).
        weight_decay: Of the optimiser.
        augmentation: shift: by up to one pixel; crop_flip: by up to four pixels, and mirrored half of the time.
        adversarial_fraction: This part of each batch is replaced by FGSM images; 0 trains on clean images alone.
        adversarial_eps: Step of FGSM in units of the normalised input, as the paper gives it.
        seed: Of the first weights, the order of the images, dropout and augmentation.
        schedule: paper: steps, see `decay_epochs`; one-cycle: up to `rate` and down to 0, changed at every batch.
        warmup: With the one-cycle schedule, the part of all epochs after which the rate is at its highest.
        nesterov: Nesterov's form of the momentum; sgd alone.
        decay_all: Weight decay on biases and normalisation too, as in the paper.
        label_smoothing: Probability that the target gives to all classes alike, in [0, 1).
        precision: Of the convolutions and matrix products while training (bfloat16 by autocast); weights and their
            updates are float32 always.
        time_limit_s: Training ends within this many seconds: the one-cycle rate follows the time where that is ahead
            of the epochs. None trains all epochs. What time decides cannot be repeated bit for bit.
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
    schedule: Schedule = "paper"
    warmup: float = 0.0
    nesterov: bool = False
    decay_all: bool = True
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse a recipe that trains nothing.

        Raises:
            InputError: A number is out of its range, or a time limit comes with a schedule that cannot be shortened.
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
        if not 0 <= self.warmup < 1 or not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"found a warm-up of {self.warmup} and label smoothing of {self.label_smoothing}, "
                "expected numbers from 0 to below 1"
            )
        if self.time_limit_s is None:
            return
        if self.schedule != "one-cycle":
            raise InputError(
                f"found a time limit with the schedule {self.schedule!r}, which cannot be shortened",
                hint="Use the one-cycle schedule",
            )
        if not self.time_limit_s > 0:
            raise InputError(f"found a time limit of {self.time_limit_s} s, expected a positive number")

    def rate_at(self, epoch: float) -> float:
        """Return the learning rate at a point of the training, in epochs counted from 0: 2.5 is amid the third."""
        if self.schedule == "paper":
            return self.rate * self.decay_factor ** sum(epoch >= border for border in self.decay_epochs)
        done = min(epoch / self.epochs, 1.0)
        if done < self.warmup:
            return self.rate * (_FIRST_RATE + (1 - _FIRST_RATE) * done / self.warmup)
        return self.rate * (1 - done) / (1 - self.warmup)


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
# The one-cycle schedule: epochs, epochs of a robust network, highest rate for batches of 512.
_ONE_CYCLE = {
    "lenet_like": (20, 20, 0.08),
    "alex_like": (25, 30, 0.08),
    "wide_resnet": (15, 12, 0.3),
    "mobilenet_v2": (15, 15, 0.2),
    "resnet20": (30, 30, 0.4),
}
# Part of the batch and FGSM step, in units of the normalised input (paper, section 4.1; eps of CIFAR-10 as in the
# authors' protocol, 0.031, where the paper's text rounds to 0.03). The digits' pixels run from 0 to 1.
_ADVERSARIAL = {"mnist": (0.3, 0.3), "cifar10": (0.6, 0.031), "digits": (0.3, 0.1)}


def recipe(model: str, *, robust: bool = False, schedule: Schedule | None = None) -> Recipe:
    """Return the recipe of a network.

    Args:
        model: Name in `models.registry`.
        robust: Train on mixed batches of clean and adversarial images.
        schedule: None takes one-cycle for the CIFAR-10 networks and paper for the others.

    Raises:
        InputError: There is no such network, or no such schedule for it.
    """
    data = entry(model).data
    base = _BASE[model]
    if schedule is None:
        schedule = "one-cycle" if data == "cifar10" else "paper"
    if robust and model == "alex_like":  # the one network whose robust schedule differs
        base = replace(base, epochs=120, decay_epochs=(30, 60, 90))
    if schedule == "one-cycle":
        base = _one_cycle(base, robust)
    if not robust:
        return base
    fraction, eps = _ADVERSARIAL[data]
    return replace(base, adversarial_fraction=fraction, adversarial_eps=eps)


def _one_cycle(base: Recipe, robust: bool) -> Recipe:
    if base.model not in _ONE_CYCLE:
        raise InputError(
            f"{base.model} has no one-cycle schedule, expected one of {', '.join(_ONE_CYCLE)}",
            hint="Use --schedule paper",
        )
    epochs, robust_epochs, rate = _ONE_CYCLE[base.model]
    return replace(
        base,
        epochs=robust_epochs if robust else epochs,
        rate=rate,
        decay_epochs=(),
        decay_factor=1.0,
        batch=512,
        schedule="one-cycle",
        warmup=0.2,
        nesterov=True,
        decay_all=False,
    )
