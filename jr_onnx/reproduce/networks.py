"""The paper's networks, and where a folder of checkpoints has them: NETWORK_VARIANT.onnx, with a card of that name.

The files take the normalised pixels of the preset `Network.preset`. In a checkout,
`python -m tools.training.export_networks` makes them of what `tools.training.train` wrote or the authors published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jr_onnx.data import PRESETS, Preprocessing
from jr_onnx.errors import InputError
from jr_onnx.records import read_regular

Variant = Literal["base", "robust", "pgd"]
PAPERS: tuple[Variant, ...] = ("base", "robust")
"""The variants that the paper has."""
VARIANTS: tuple[Variant, ...] = (*PAPERS, "pgd")
TRAINED: Mapping[str, str] = {"base": "base", "robust": "robust", "pgd": "PGD-trained"}
"""How a row names a variant."""


@dataclass(frozen=True)
class Network:
    """One network and how the paper treats it (section 4, tables 1, 2 and 4).

    Attributes:
        letter: Of its tables; e is not in the paper.
        title: Its name in the paper.
        stem: Beginning of the file's name.
        data: mnist or cifar10.
        kappa: Of tables 1 and 2.
        random_kappa: Upper end of the random kappa of table 4; the lower one is 0.6 of it (appendix C).
        grid: Kappas of figure 4.
        steps: Steps of PGD and DeepFool.
    """

    letter: str
    title: str
    stem: str
    data: str
    kappa: float
    random_kappa: float
    grid: tuple[float, ...]
    steps: int

    @property
    def preset(self) -> str:
        """Name of the preprocessing that its input has."""
        return self.data

    @property
    def preprocessing(self) -> Preprocessing:
        """From pixels to its input."""
        return PRESETS[self.preset]

    @property
    def eps(self) -> float:
        """How far the paper's PGD can move a pixel, in pixel scale: steps of 0.01, by the least deviation."""
        return 0.01 * self.steps * min(self.preprocessing.std)


def _grid(top: float, count: int) -> tuple[float, ...]:
    return tuple(round(top * place / count, 4) for place in range(count + 1))


NETWORKS = (
    Network("a", "LeNetLike", "lenet_like", "mnist", 1.0, 1.0, _grid(1.5, 6), 40),
    Network("b", "AlexLike", "alex_like", "cifar10", 0.4, 0.5, _grid(0.8, 4), 7),
    Network("c", "WideResNet", "wide_resnet", "cifar10", 0.07, 0.09, _grid(0.09, 3), 7),
    Network("d", "MobileNetV2", "mobilenet_v2", "cifar10", 0.06, 0.08, _grid(0.09, 3), 7),
    Network("e", "ResNet-20 (not in the paper)", "resnet20", "cifar10", 0.07, 0.09, _grid(0.09, 3), 7),
)
BY_LETTER = {network.letter: network for network in NETWORKS}


@dataclass(frozen=True)
class Checkpoint:
    """A network's file.

    Attributes:
        network: Which.
        variant: base (trained on clean images), robust (on FGSM images too) or pgd (on PGD images; not in the paper).
        path: The ONNX file.
        source: Where its weights come from, as the card beside it says; "" without a card.
    """

    network: Network
    variant: Variant
    path: Path
    source: str

    @property
    def name(self) -> str:
        """File name without the ending."""
        return self.path.stem

    @property
    def is_authors(self) -> bool:
        """Whether these are the weights that the paper's figures were measured on."""
        return self.source.startswith("published by the authors")


def find(folders: Sequence[Path], network: Network, variant: Variant) -> Checkpoint | None:
    """Return a network's file in the first folder that has it.

    Raises:
        InputError: The card beside it cannot be read.
    """
    name = f"{network.stem}_{variant}.onnx"
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return None if path is None else Checkpoint(network, variant, path, _source(path.with_suffix(".json")))


def _source(card: Path) -> str:
    if not card.is_file():
        return ""
    try:
        content: Any = json.loads(read_regular(card).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the card {card}: {error}", hint="Remove or repair it") from None
    return str(content.get("source", "")) if isinstance(content, dict) else ""
