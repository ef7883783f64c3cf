"""Projected gradient ascent in a ball, as everyone but the paper defines PGD (Madry et al., 2018).

Random start, restarts for the samples that are not yet fooled, and an optional momentum on the normalised gradient
(Dong et al., 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from jr_onnx.attack.base import Problem
from jr_onnx.attack.noise import as_tensor
from jr_onnx.attack.norms import Ball, expand, lengths, steepest
from jr_onnx.attack.objectives import objective_named
from jr_onnx.attack.oracle import QueryResult
from jr_onnx.attack.stepwise import Live, StepwiseAttack
from jr_onnx.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class PGD(StepwiseAttack):
    """Projected gradient ascent.

    Attributes:
        eps: Radius of the ball.
        steps: Steps of one round.
        step_size: Length of a step; 2.5 eps / steps by default.
        restarts: Rounds; the first starts at the image unless `random_start`.
        random_start: Start round one, too, at a random point of the ball.
        momentum: Share of the previous direction that is kept, 0 for none.
        loss: What to increase: ce, margin, dlr.
    """

    name: ClassVar[str] = "pgd"

    eps: float = 8 / 255
    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    momentum: float = 0.0
    loss: str = "ce"

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        super().__post_init__()
        objective_named(self.loss)

    @property
    def radius(self) -> float | None:
        """Radius of the ball."""
        return self.eps

    @property
    def rounds(self) -> int:
        """How often to start again."""
        return self.restarts

    @property
    def length(self) -> int:
        """Steps of one round."""
        return self.steps

    def _begin(self, problem: Problem, live: Live, number: int) -> None:
        live.ball = Ball(live.x, self.eps, self.norm, problem.low, problem.high)
        if self.random_start or number > 0:
            live.x = live.ball.project(
                live.x + random_direction(problem, live.rows, live.x, self.norm, number) * self.eps
            )
        if self.momentum:
            live.state["velocity"] = torch.zeros_like(live.x)

    def _ask(self, problem: Problem, live: Live) -> QueryResult:
        return problem.oracle.gradient(live.x, live.rows, objective_named(self.loss), live.aim, problem.won)

    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        del problem
        direction = parts[1]
        if self.momentum:
            size = expand(lengths(direction, "l1"), direction).clamp_min(1e-30)
            direction = live.state["velocity"].mul_(self.momentum).add_(direction / size)
        step = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        if live.ball is None:
            raise ContractError("a round of PGD began without a ball")
        return live.ball.project(steepest(direction, self.norm).mul_(step).add_(live.x))


def random_direction(problem: Problem, rows: Tensor, like: Tensor, norm: str, number: int) -> Tensor:
    """Draw a point (m, C, H, W) of the unit ball, uniformly, for round `number`.

    L-infinity draws every entry from [-1, 1]. L2 draws a direction, and L1 signed exponentials; both with the
    radius that makes the point uniform in the ball, u ** (1 / d).
    """
    keys, count = problem.indices_of(rows), math.prod(like.shape[1:])
    noise = problem.noise
    if norm == "linf":
        return as_tensor(2 * noise.uniform("start", keys, count, number) - 1, like)
    if norm == "l2":
        raw = noise.normal("start", keys, count, number)
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    else:
        uniform = noise.uniform("start", keys, count, number)
        raw = -np.log1p(-uniform) * np.where(noise.uniform("start sign", keys, count, number) < 0.5, -1.0, 1.0)
        raw /= np.abs(raw).sum(axis=1, keepdims=True)
    return as_tensor(raw * noise.uniform("start radius", keys, 1, number) ** (1 / count), like)
