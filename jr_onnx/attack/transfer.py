"""Transfer: perturbations found on one network, judged on another.

Any gradient attack takes a `source` of its own in `run`: gradients come from the source, each step is judged on the
target, and the first point that fools the target is kept. What is here are the sources worth trying, and the
minimal attack that keeps a source's direction and looks for the right length on the target: if it beats the
attack on the target itself, the target hides its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.base import GradientAttack, Problem
from jr_onnx.attack.deepfool import DeepFool
from jr_onnx.attack.minimal import bisect
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.norms import Norm, expand
from jr_onnx.attack.oracle import Oracle, Tally
from jr_onnx.attack.torch_target import TorchTarget

SOURCE_FACTORS = (0.0, 0.5)
"""Multiples of the target's kappa to craft on: the ReLU network, and half the jump, which transfers best."""


def kappa_sources(target: TorchTarget, factors: tuple[float, ...] = SOURCE_FACTORS) -> dict[str, TorchTarget]:
    """Return the sources of a transfer attack on `target`, by name.

    Raises:
        RefusalError: The model cannot change its kappa.
    """
    return {f"kappa*{factor:g}": target.with_scaled_kappa(factor) for factor in factors}


@dataclass(frozen=True, kw_only=True)
class RescaledDeepFool(GradientAttack):
    """DeepFool on the source alone, then the least multiple of its perturbation that fools the target.

    Attributes:
        steps: DeepFool's steps on the source.
        classes: Other classes that DeepFool considers.
        stretch: The greatest multiple to try.
        multiples: How many multiples to try, evenly spaced up to `stretch`.
        bisections: Evaluations of the way back to the boundary.
    """

    name: ClassVar[str] = "rescaled-deepfool"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    norm: Norm = "l2"
    steps: int = 40
    classes: int = 9
    stretch: float = 4.0
    multiples: int = 40
    bisections: int = 10

    def _search(self, problem: Problem) -> Tensor:
        delta = self._direction(problem)
        left = problem.rows
        result = problem.images.clone()
        for number in range(1, self.multiples + 1):
            multiple = self.stretch * number / self.multiples
            x = (problem.images[left] + multiple * delta[left]).clamp_(problem.low, problem.high)
            won = problem.won(problem.oracle.logits(x, left), left)
            problem.iterations[left] += 1
            if bool(won.any()):
                result[left[won]] = bisect(problem, left[won], x[won], self.bisections)
            left = left[~won]
            if len(left) == 0:
                break
        return result

    def _direction(self, problem: Problem) -> Tensor:
        """Return DeepFool's perturbations on the source; zero where they are not finite."""
        outer = problem.oracle
        source = outer.source.draw(Noise(self.seed).word("transfer source"))
        tally = Tally(len(problem), problem.images.device)
        inner = Problem(
            problem.images,
            problem.aim,
            problem.indices,
            Oracle(source, source, tally, self.seed, 1, outer.pool, idling=outer.idle is not None),
            problem.low,
            problem.high,
            problem.classes,
            problem.targeted,
            problem.noise,
            torch.zeros_like(problem.iterations),
        )
        attack = DeepFool(norm=self.norm, seed=self.seed, steps=self.steps, classes=self.classes)
        points = attack._search(inner)
        outer.tally.add(tally)
        delta = points - problem.images
        usable = torch.isfinite(delta.flatten(1).sum(1))
        return torch.where(expand(usable, delta), delta, 0.0)
