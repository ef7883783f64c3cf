"""Decoupling direction and norm, a minimal L2 attack (Rony et al., 2019, algorithm 1).

The perturbation moves by a step of length alpha along the gradient of the cross entropy, and is then scaled to the
current budget; the budget shrinks by gamma where the point is adversarial and grows by gamma where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.base import Problem
from jr_onnx.attack.minimal import Hunt, MinimalAttack, cosine
from jr_onnx.attack.norms import Norm, expand, lengths, steepest
from jr_onnx.attack.objectives import Objective, cross_entropy


@dataclass(frozen=True, kw_only=True)
class DDN(MinimalAttack):
    """Decoupling direction and norm.

    Attributes:
        first_eps: Budget to start with, in shares of the valid range.
        gamma: Share by which the budget changes in a step.
    """

    name: ClassVar[str] = "ddn"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    norm: Norm = "l2"
    first_eps: float = 1.0
    gamma: float = 0.05

    def _objective(self) -> Objective:
        return cross_entropy

    def _next(self, problem: Problem, hunt: Hunt) -> Tensor:
        span = problem.high - problem.low
        if hunt.step == 0:
            hunt.state["eps"] = torch.full_like(hunt.loss, self.first_eps * span)
        delta = hunt.x - problem.images
        alpha = cosine(1.0, 0.01, hunt.step, self.steps) * span
        delta += steepest(hunt.gradient, "l2").mul_(alpha)
        hunt.state["eps"] *= torch.where(hunt.hit, 1 - self.gamma, 1 + self.gamma)
        size = lengths(delta, "l2").clamp_min(1e-30)
        return problem.images + delta * expand(hunt.state["eps"] / size, delta)
