"""The networks by name, with what a program must know to train, export and evaluate them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from jr_onnx.data.preprocessing import PRESETS, Preprocessing
from jr_onnx.errors import InputError
from models.activation import Activation
from models.alex_like import AlexLike
from models.digits_net import DigitsCNN, DigitsMLP
from models.lenet_like import LeNetLike
from models.mobilenet_v2 import MobileNetV2
from models.resnet import ResNet20
from models.wide_resnet import WideResNet


@dataclass(frozen=True)
class ModelEntry:
    """One network.

    Attributes:
        name: Name in this registry.
        factory: Takes an activation factory and returns the network.
        input_shape: (C, H, W).
        preset: Name of the preprocessing that its input has; see `jr_onnx.data.PRESETS`.
        data: Kind of data: digits, mnist or cifar10.
        sites: Number of activations.
        paper_kappa: The kappa of the paper's tables 1 and 2; None for a network that is not in the paper.
        paper_random_kappa: The range of the paper's table 4, low and high; None likewise.
    """

    name: str
    factory: Callable[[Activation], nn.Module]
    input_shape: tuple[int, int, int]
    preset: str
    data: str
    sites: int
    paper_kappa: float | None = None
    paper_random_kappa: tuple[float, float] | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """From pixel scale to this network's input."""
        return PRESETS[self.preset]


_DIGITS, _MNIST, _CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
# The lower ends of the random ranges are 0.6 of the upper ones (paper, appendix C).
_ENTRIES: Final = (
    ModelEntry("digits_cnn", DigitsCNN, _DIGITS, "none", "digits", 4),
    ModelEntry("digits_mlp", DigitsMLP, _DIGITS, "none", "digits", 2),
    ModelEntry("lenet_like", LeNetLike, _MNIST, "mnist", "mnist", 4, 1.0, (0.6, 1.0)),
    ModelEntry("alex_like", AlexLike, _CIFAR, "cifar10", "cifar10", 6, 0.4, (0.3, 0.5)),
    ModelEntry("wide_resnet", WideResNet, _CIFAR, "cifar10", "cifar10", 31, 0.07, (0.054, 0.09)),
    ModelEntry("mobilenet_v2", MobileNetV2, _CIFAR, "cifar10", "cifar10", 36, 0.06, (0.048, 0.08)),
    ModelEntry("resnet20", ResNet20, _CIFAR, "cifar10", "cifar10", 19),
)
_BY_NAME: Final = {item.name: item for item in _ENTRIES}
NAMES: Final = tuple(_BY_NAME)


def entry(name: str) -> ModelEntry:
    """Return what is known about a network.

    Raises:
        InputError: There is none of that name.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InputError(f"there is no network {name!r}, expected one of {', '.join(NAMES)}") from None


def build(name: str, activation: Activation = nn.ReLU) -> nn.Module:
    """Return a fresh network in evaluation mode, its sites made by `activation`.

    Raises:
        InputError: There is none of that name.
    """
    return entry(name).factory(activation).eval()
