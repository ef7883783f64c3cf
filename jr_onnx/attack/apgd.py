"""Auto-PGD: gradient ascent in a ball that sets its own step size (Croce and Hein, 2020, section 3).

The step starts at 2 eps and is halved per sample at checkpoints p_j, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)
(in shares of the steps), if fewer than 75 per cent of the steps since the last one increased the loss, or if
neither the step nor the best loss has changed; the sample then goes back to its best point. A step is

    z = P(x + s d(g)),    x' = P(x + 0.75 (z - x) + 0.25 (x - x_previous))

The targeted form aims at each of the `targets` runners-up in turn, with the targeted DLR loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.accelerator import overwrite, overwrite_rows
from jr_onnx.attack.base import GradientAttack, Problem
from jr_onnx.attack.norms import Ball, expand, steepest
from jr_onnx.attack.objectives import Objective, cross_entropy, dlr_targeted, objective_named
from jr_onnx.attack.pgd import random_direction
from jr_onnx.attack.stepwise import PATIENCE

_PUSH, _INERTIA = 0.75, 0.25
_SUCCESS_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class _AutoPGD(GradientAttack):
    """What both attacks have in common: a ball, a number of steps and a named loss."""

    eps: float = 8 / 255
    steps: int = 100
    loss: str = "ce"

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        super().__post_init__()
        objective_named(self.loss)

    @property
    def radius(self) -> float | None:
        """Radius of the ball."""
        return self.eps


@dataclass(frozen=True, kw_only=True)
class APGD(_AutoPGD):
    """Auto-PGD.

    Attributes:
        eps: Radius of the ball.
        steps: Steps of one round.
        restarts: Rounds, each from a random point of the ball.
        loss: What to increase: ce, dlr, margin.
    """

    name: ClassVar[str] = "apgd"

    restarts: int = 1

    def _search(self, problem: Problem) -> Tensor:
        result = problem.images.clone()
        left = problem.rows
        for number in range(self.restarts):
            objective = objective_named(self.loss)
            climb = _Climb(problem, left, problem.aim[left], objective, self, number)
            left = left[~climb.run(result)]
            if len(left) == 0:
                break
        return result


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(_AutoPGD):
    """Auto-PGD towards each of the runners-up in turn; with goals, towards the goal alone.

    Attributes:
        eps: Radius of the ball.
        steps: Steps towards one class.
        targets: Classes to aim at, those with the greatest logits on the clean image.
        loss: "dlr-targeted", or "ce" of the class aimed at (for models of fewer than four classes).
    """

    name: ClassVar[str] = "apgd-t"

    targets: int = 9
    loss: str = "dlr-targeted"

    def _search(self, problem: Problem) -> Tensor:
        result = problem.images.clone()
        left = problem.rows
        goals = self._goals(problem)
        objective = dlr_targeted if self.loss == "dlr-targeted" else cross_entropy
        for number in range(goals.shape[1]):
            aim = torch.stack([problem.aim[left, 0], goals[left, number]], dim=1)
            climb = _Climb(problem, left, aim, objective, self, number)
            left = left[~climb.run(result)]
            if len(left) == 0:
                break
        return result

    def _goals(self, problem: Problem) -> Tensor:
        """Return the classes to aim at (n, k), the likeliest first."""
        if problem.targeted:
            return problem.aim[:, 1:]
        logits = problem.oracle.logits(problem.images, problem.rows)
        others = logits.scatter(1, problem.aim[:, :1], float("-inf"))
        ranked = others.argsort(dim=1, descending=True, stable=True)
        # A class that is masked cannot be reached: aim at the best one again.
        ranked = torch.where(torch.isneginf(others.gather(1, ranked)), ranked[:, :1], ranked)
        return ranked[:, : min(self.targets, logits.shape[1] - 1)]


def checkpoints(steps: int) -> list[int]:
    """Return the lengths of the stretches between the checkpoints of a run."""
    stretch, least, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    result, total = [], 0
    while total < steps:
        result.append(stretch)
        total += stretch
        stretch = max(stretch - shrink, least)
    return result


class _Climb:
    """One round of Auto-PGD on the samples `rows`; every tensor here has one row per sample still in it."""

    def __init__(
        self,
        problem: Problem,
        rows: Tensor,
        aim: Tensor,
        objective: Objective,
        attack: APGD | TargetedAPGD,
        number: int,
    ) -> None:
        self.problem, self.objective, self.attack = problem, objective, attack
        images = problem.images[rows]
        self.starters = rows
        self.rows, self.aim = rows, aim
        self.ball = Ball(images, attack.eps, attack.norm, problem.low, problem.high)
        start = random_direction(problem, rows, images, attack.norm, number) * attack.eps
        self.x = self.ball.project(images + start)
        self.previous = self.x.clone()
        self.best = self.x.clone()
        self.gradient = torch.zeros_like(self.x)
        self.best_gradient = torch.zeros_like(self.x)
        nothing = torch.full((len(rows),), float("-inf"), dtype=images.dtype, device=images.device)
        self.loss, self.best_loss, self.best_loss_before = nothing, nothing.clone(), nothing.clone()
        self.step = torch.full_like(nothing, 2 * attack.eps if attack.norm != "l1" else attack.eps)
        self.rises = torch.zeros_like(nothing)
        self.halved = torch.ones_like(nothing, dtype=torch.bool)
        problem.oracle.wake(rows)

    def run(self, result: Tensor) -> Tensor:
        """Climb; write the points that fooled (else the best) into `result`, and return which starters were fooled."""
        fooled = torch.zeros(len(self.problem), dtype=torch.bool, device=result.device)
        if not self._evaluate(result, fooled):
            return fooled[self.starters]
        self.best_loss_before = self.best_loss.clone()
        stretches, done = checkpoints(self.attack.steps), 0
        for stretch in stretches:
            self.rises.zero_()
            for _ in range(min(stretch, self.attack.steps - done)):
                if done % PATIENCE == 0 and not self._settle():
                    return fooled[self.starters]
                done += 1
                self._advance(first=done == 1)
                if not self._evaluate(result, fooled):
                    return fooled[self.starters]
            self._adapt(stretch)
        overwrite_rows(result, self.rows, self.problem.oracle.active(self.rows), self.best)
        return fooled[self.starters]

    def _advance(self, first: bool) -> None:
        step = steepest(self.gradient, self.attack.norm) * expand(self.step, self.x)
        ahead = self.ball.project(self.x + step)
        if not first:
            ahead = self.ball.project(self.x + _PUSH * (ahead - self.x) + _INERTIA * (self.x - self.previous))
        self.previous, self.x = self.x, ahead
        self.problem.iterations[self.rows] += self.problem.oracle.active(self.rows).long()

    def _evaluate(self, result: Tensor, fooled: Tensor) -> bool:
        """Judge and differentiate at the current points, drop the fooled samples; return whether any is left."""
        problem = self.problem
        found = problem.oracle.gradient(self.x, self.rows, self.objective, self.aim, problem.won)
        done = problem.oracle.active(self.rows) & ~found.kept
        overwrite_rows(result, self.rows, done, self.x)
        fooled[self.rows] |= done
        problem.oracle.rest(self.rows, done)
        if problem.oracle.idle is None and not self._keep(found.kept):
            return False
        loss, self.gradient = found.parts
        loss = torch.where(torch.isfinite(loss), loss, float("-inf"))
        self.rises += (loss > self.loss).to(loss.dtype)
        self.loss = loss
        better = loss > self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        overwrite(self.best, better, self.x)
        overwrite(self.best_gradient, better, self.gradient)
        return True

    def _adapt(self, stretch: int) -> None:
        """Halve the step of samples that do not get on, and take them back to their best point."""
        slow = self.rises < _SUCCESS_SHARE * stretch
        stuck = ~self.halved & (self.best_loss_before >= self.best_loss)
        halve = slow | stuck
        self.step = torch.where(halve, self.step / 2, self.step)
        overwrite(self.x, halve, self.best)
        overwrite(self.gradient, halve, self.best_gradient)
        self.loss = torch.where(halve, self.best_loss, self.loss)
        self.halved, self.best_loss_before = halve, self.best_loss.clone()

    def _settle(self) -> bool:
        """Drop the idle samples; return whether any is left."""
        return self.problem.oracle.idle is None or self._keep(self.problem.oracle.active(self.rows))

    def _keep(self, kept: Tensor) -> bool:
        """Drop the samples that `kept` (m,) does not name; return whether any is left."""
        rows = kept.nonzero()[:, 0]
        if len(rows) < len(kept):
            self.ball = self.ball.select(rows)
            for name in _PER_SAMPLE:
                setattr(self, name, getattr(self, name)[rows])
        return len(rows) > 0


_PER_SAMPLE = (
    "rows", "aim", "x", "previous", "best", "gradient", "best_gradient", "loss", "best_loss", "best_loss_before",
    "step", "rises", "halved",
)  # fmt: skip
