"""What a kappa is chosen for: a score per sample, the higher the better.

| objective | score of a sample |
|---|---|
| adaptive | 1 where it survives the exact, the surrogate and the transfer attacks at eps, else 0 |
| black-box | 1 where it survives Square (Andriushchenko et al. 2020) against the served file at eps, else 0 |
| paper | the relative L-infinity perturbation at which the paper's DeepFool stopped (eq. 12; paper, figure 4) |

The black-box score needs no gradients, and is the weaker measure: a kappa that gains there may gain nothing against
attacks that adapt.

The paper's score rises with the jump because the jump blinds DeepFool, whether or not the network became more robust;
it is here to compare with the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.apgd import APGD
from jr_onnx.attack.base import EOT_DRAWS, GradientAttack
from jr_onnx.attack.deepfool import DeepFool
from jr_onnx.attack.norms import Norm
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.square import Square
from jr_onnx.attack.target import ArrayTarget
from jr_onnx.attack.torch_target import TorchTarget, scaled
from jr_onnx.errors import InputError
from jr_onnx.semantics import SiteKappa, is_jump

ObjectiveName = Literal["adaptive", "paper", "black-box"]
Replay = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Returns which images the served file gets wrong."""

Floats = npt.NDArray[np.float64]

_BACKWARDS = ("exact", "smooth:2", "smooth:5", "smooth:10")
_SOURCE_FACTORS = (0.0, 0.5)


@dataclass(frozen=True)
class Objective:
    """A choice of attacks, and how their results become scores.

    Attributes:
        name: adaptive, paper or black-box.
        norm: Of the adaptive budget.
        eps: The adaptive budget, in pixel scale.
        steps: Steps of each adaptive attack.
        paper_steps: Steps of the paper's DeepFool.
        queries: Queries of the black-box attack for every sample.
        seed: Random seed.
        batch: Samples in memory at once.
    """

    name: ObjectiveName = "adaptive"
    norm: Norm = "linf"
    eps: float = 8 / 255
    steps: int = 30
    paper_steps: int = 40
    queries: int = 1000
    seed: int = 0
    batch: int = 256

    def __post_init__(self) -> None:
        """Refuse an unknown name."""
        if self.name not in get_args(ObjectiveName):
            raise InputError(f"the objective is {self.name!r}, expected adaptive, paper or black-box")

    @property
    def measure(self) -> str:
        """A description of what is measured."""
        if self.name == "paper":
            return "mean relative DeepFool perturbation, linf (paper protocol, not adaptive)"
        if self.name == "black-box":
            return f"robust accuracy against Square with {self.queries} queries (black box), {self.norm} {self.eps:.4g}"
        return f"robust accuracy against adaptive attacks, {self.norm} {self.eps:.4g}"

    def scores(
        self,
        target: TorchTarget,
        kappas: Mapping[str, SiteKappa],
        images: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        *,
        replay: Replay | None = None,
    ) -> Floats:
        """Score samples at given kappas.

        Args:
            target: The network.
            kappas: Site id -> kappa.
            images: Pixels (N, C, H, W).
            labels: Classes (N,).
            replay: Asks the served file at these kappas, where torch agrees with it in decisions alone: only what
                fools it counts.

        Returns:
            (N,); 0 for a sample that is misclassified without any attack.
        """
        attacked = target.with_kappa(kappas)
        if self.name == "paper":
            attack = DeepFool(norm="linf", steps=self.paper_steps, classes=9, seed=self.seed)
            found = attack.run(attacked.in_units("paper"), images, labels, batch_size=self.batch)
            relative: Floats = np.nan_to_num(found.relative["linf"].numpy().astype(np.float64), posinf=0.0)
            return relative
        return self._adaptive(attacked, target, kappas, images, labels, replay)

    def scores_of_served(
        self, served: ArrayTarget, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> Floats:
        """Score samples of a served file by an attack that needs no gradients.

        Args:
            served: The file, as a target that takes pixels.
            images: Pixels (N, C, H, W).
            labels: Classes (N,).

        Returns:
            (N,); 0 for a sample that is misclassified without any attack.
        """
        attack = Square(norm=self.norm, eps=self.eps, seed=self.seed, queries=self.queries)
        found = attack.run(served, images, labels, batch_size=self.batch)
        scores: Floats = found.robust.numpy().astype(np.float64)
        return scores

    def _adaptive(
        self,
        attacked: TorchTarget,
        target: TorchTarget,
        kappas: Mapping[str, SiteKappa],
        images: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        replay: Replay | None,
    ) -> Floats:
        """Attack the survivors of each attack with the next one."""
        left = np.arange(len(labels), dtype=np.int64)

        def attack_rest(attack: GradientAttack, source: TorchTarget | None) -> None:
            nonlocal left
            if len(left):
                attack = replace(attack, eot=EOT_DRAWS) if attacked.is_random else attack
                found: AttackResult = attack.run(
                    attacked, images[left], labels[left], source=source, indices=left, batch_size=self.batch
                )
                survives = found.robust.numpy()
                if replay is not None:
                    survives = ~replay(found.adversarials.numpy(), labels[left])
                left = left[survives]

        plain = not any(map(is_jump, kappas.values()))
        for backward in _BACKWARDS[:1] if plain else _BACKWARDS:
            attack_rest(APGD(norm=self.norm, eps=self.eps, steps=self.steps, seed=self.seed, backward=backward), None)
        if plain:
            # The same effort for the plain network: as many attacks, from other random numbers.
            for number in range(1, len(_BACKWARDS) + len(_SOURCE_FACTORS)):
                attack_rest(APGD(norm=self.norm, eps=self.eps, steps=self.steps, seed=self.seed + number), None)
        else:
            for factor in _SOURCE_FACTORS:
                source = target.with_kappa(scaled(kappas, factor))
                attack_rest(APGD(norm=self.norm, eps=self.eps, steps=self.steps, seed=self.seed), source)
        scores = np.zeros(len(labels), dtype=np.float64)
        scores[left] = 1.0
        return scores
