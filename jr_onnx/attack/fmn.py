"""The fast minimum-norm attack in L-infinity, L2 and L1 (Pintor et al., 2021, algorithm 1).

The point climbs the logit margin inside a ball whose radius follows the boundary: until a sample's first success
the radius is the current size plus the linearised distance to the boundary, afterwards it shrinks by gamma at an
adversarial point and grows by gamma elsewhere. Both the step and gamma fall along a cosine. Unlike in the paper the
radius never shrinks before the first success: a linearisation that is too short would otherwise hold a sample at
the same point for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.base import Problem
from jr_onnx.attack.minimal import Hunt, MinimalAttack, cosine
from jr_onnx.attack.norms import Norm, dual_lengths, expand, lengths, project_l1_box, steepest
from jr_onnx.attack.objectives import Objective, margin


@dataclass(frozen=True, kw_only=True)
class FMN(MinimalAttack):
    """Fast minimum norm.

    Attributes:
        first_step: L2 length of the first step, in shares of the valid range.
        gamma: Share by which the radius changes in the first step.
    """

    name: ClassVar[str] = "fmn"

    norm: Norm = "l2"
    first_step: float = 1.0
    gamma: float = 0.05

    def _objective(self) -> Objective:
        return margin

    def _next(self, problem: Problem, hunt: Hunt) -> Tensor:
        delta = hunt.x - problem.images
        gamma = cosine(self.gamma, 0.001, hunt.step, self.steps)
        radius = self._radius_now(hunt, lengths(delta, self.norm), gamma)
        span = problem.high - problem.low
        step = cosine(self.first_step, 0.01 * self.first_step, hunt.step, self.steps) * span
        delta += steepest(hunt.gradient, "l2").mul_(step)
        return problem.images + self._project(problem, delta, radius)

    def _radius_now(self, hunt: Hunt, size: Tensor, gamma: float) -> Tensor:
        """Return the radius of the next ball (n,)."""
        if hunt.step == 0:
            hunt.state["radius"] = torch.full_like(hunt.loss, float("inf"))
        slope = dual_lengths(hunt.gradient, self.norm)
        ahead = torch.where(slope > 0, hunt.loss.abs() / slope.clamp_min(1e-30), float("inf"))
        ever = torch.isfinite(hunt.best_size)
        radius = hunt.state["radius"]
        shrunk = torch.minimum(radius * (1 - gamma), hunt.best_size)
        grown = radius * (1 + gamma)
        reach = torch.maximum(size + ahead, torch.where(torch.isfinite(grown), grown, 0.0))
        radius = torch.where(hunt.hit, shrunk, torch.where(ever, grown, reach))
        hunt.state["radius"] = radius
        return radius

    def _project(self, problem: Problem, delta: Tensor, radius: Tensor) -> Tensor:
        wide = expand(radius, delta)
        if self.norm == "linf":
            return torch.maximum(torch.minimum(delta, wide), -wide)
        if self.norm == "l2":
            size = expand(lengths(delta, "l2"), delta).clamp_min(1e-30)
            return torch.where(size > wide, delta * (wide / size), delta)
        return project_l1_box(delta, problem.low - problem.images, problem.high - problem.images, radius)
