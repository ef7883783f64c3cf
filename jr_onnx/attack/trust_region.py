"""The first-order trust region attack as the paper uses it (Yao et al., 2018; paper, section 2.1).

One class is chosen at the start, the nearest by DeepFool's L2 (or L-infinity) ranking. Each step then goes

    min(gap / (||g||_q + 1e-6), trust_radius),    g = grad(z_t - z_y)

towards it, with DeepFool's overshoot, until any other class wins. The paper's figures need 1000 steps of 0.01 in
normalised L2: 40 steps, the default of the authors' code, cannot move far enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.base import Problem
from jr_onnx.attack.deepfool import nearest_boundary, overshoot
from jr_onnx.attack.fgsm import PaperAttack
from jr_onnx.attack.norms import Norm, dual_lengths
from jr_onnx.attack.objectives import margin, towards
from jr_onnx.attack.oracle import QueryResult
from jr_onnx.attack.stepwise import Live


@dataclass(frozen=True, kw_only=True)
class TrustRegion(PaperAttack):
    """First-order trust region attack.

    Attributes:
        steps: At most this many.
        trust_radius: The longest step.
        classes: Other classes among which the nearest is chosen.
    """

    name: ClassVar[str] = "trust-region"
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    norm: Norm = "l2"
    steps: int = 1000
    trust_radius: float = 0.01
    classes: int = 9

    @property
    def length(self) -> int:
        """Steps of one round."""
        return self.steps

    def _begin(self, problem: Problem, live: Live, number: int) -> None:
        del number
        if problem.targeted:
            return
        width = min(self.classes, problem.classes - 1)
        work = nearest_boundary(self.norm, width, problem.targeted)
        # What one draw of a random model misclassifies is attacked all the same.
        screen = None if problem.oracle.varies else problem.won
        found = problem.oracle.differentiate(live.x, live.rows, live.aim, work, backwards=width, screen=screen)
        self._leave(problem, live, found.kept)
        if len(live.rows):
            live.aim = torch.stack([live.aim[:, 0], found.parts[2]], dim=1)

    def _ask(self, problem: Problem, live: Live) -> QueryResult:
        objective = margin if problem.targeted else towards  # a goal must beat every class, not the label alone
        return problem.oracle.gradient(live.x, live.rows, objective, live.aim, problem.won)

    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        value, slope = parts
        gap = -value  # the label's lead over the chosen class
        per = (gap / (dual_lengths(slope, self.norm) + 1e-6)).clamp_max(self.trust_radius)
        return self._clip(problem, live, overshoot(per, slope, self.norm).add_(live.x))
