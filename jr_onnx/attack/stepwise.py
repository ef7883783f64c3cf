"""Attacks that move every sample step by step until it is fooled.

One forward pass a step serves the verdict and the gradient. A sample leaves the batch in the step that finds it
fooled, and keeps the point that fooled it; on a GPU, it then stays idle until several leave together (`accelerator`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.accelerator import overwrite_rows
from jr_onnx.attack.base import GradientAttack, Problem
from jr_onnx.attack.norms import Ball
from jr_onnx.attack.objectives import cross_entropy, finite, margin
from jr_onnx.attack.oracle import QueryResult

PATIENCE = 2
"""On a device that works on its own: steps after which the samples that are done leave the batch."""

_SHRINKING = 16
"""One in so many samples fooled in a step makes sorting the others worth while."""


@dataclass(slots=True)
class Live:
    """The samples still under attack, kept compact.

    Attributes:
        rows: Their positions in the problem (m,).
        x: Where they are (m, C, H, W).
        aim: Classes for the objective (m, 2).
        ball: Where they may go; None for attacks without a budget.
        state: Further tensors of one row per sample, such as a momentum.
    """

    rows: Tensor
    x: Tensor
    aim: Tensor
    ball: Ball | None = None
    state: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, kept: Tensor) -> None:
        """Drop the samples that `kept` (m,) does not name."""
        if not bool(kept.all()):
            self.take(kept)

    def take(self, kept: Tensor) -> None:
        """Keep the samples of a mask (m,), or those of positions (k,) in their order."""
        self.rows, self.x, self.aim = self.rows[kept], self.x[kept], self.aim[kept]
        self.ball = None if self.ball is None else self.ball.select(kept)
        self.state = {name: values[kept] for name, values in self.state.items()}


class StepwiseAttack(GradientAttack):
    """Base of the step-by-step attacks; a subclass says how a sample moves."""

    patience: ClassVar[int] = PATIENCE

    @property
    def rounds(self) -> int:
        """How often to start again for the samples that are not yet fooled."""
        return 1

    @property
    @abstractmethod
    def length(self) -> int:
        """Steps of one round."""

    @abstractmethod
    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        """Return the next points (m, C, H, W), given what `_ask` differentiated; non-finite ends a sample."""

    def _begin(self, problem: Problem, live: Live, number: int) -> None:
        """Prepare round `number`: starting points, ball, momentum."""

    def _ask(self, problem: Problem, live: Live) -> QueryResult:
        """Judge the live samples and differentiate; by default the cross entropy."""
        return problem.oracle.gradient(live.x, live.rows, cross_entropy, live.aim, problem.won)

    def _search(self, problem: Problem) -> Tensor:
        result = problem.images.clone()
        left = problem.rows
        for number in range(self.rounds):
            problem.oracle.wake(left)
            live = Live(left, problem.images[left], problem.aim[left])
            self._begin(problem, live, number)
            walk = self._walk if problem.oracle.idle is None else self._walk_idling
            fooled = walk(problem, live, result)
            left = left[~fooled[left]]
            if len(left) == 0:
                break
        return result

    def _walk(self, problem: Problem, live: Live, result: Tensor) -> Tensor:
        """Walk one round; write the end points into `result` and return which samples (n,) were fooled."""
        fooled = torch.zeros(len(problem), dtype=torch.bool, device=result.device)
        for _ in range(self.length if len(live.rows) else 0):
            found = self._ask(problem, live)
            done = ~found.kept
            result[live.rows[done]] = live.x[done]
            fooled[live.rows[done]] = True
            parts = found.parts
            if int(done.sum()) * _SHRINKING > len(done):
                order = _by_lead(found.logits[found.kept], live.aim[found.kept])
                live.take(found.kept.nonzero()[:, 0][order])
                parts = tuple(part[order] for part in parts)
            else:
                live.keep(found.kept)
            if len(live.rows) == 0:
                break
            problem.iterations[live.rows] += 1
            live.x = self._move(problem, live, parts)
            if not bool(torch.isfinite(live.x.sum())):
                usable = finite(live.x)
                result[live.rows[~usable]] = live.x[~usable]
                live.keep(usable)
                if len(live.rows) == 0:
                    break
        result[live.rows] = live.x
        if self.rounds > 1 and len(live.rows):
            won = problem.won(problem.oracle.logits(live.x, live.rows), live.rows)
            fooled[live.rows[won]] = True
        return fooled

    def _walk_idling(self, problem: Problem, live: Live, result: Tensor) -> Tensor:
        """Walk one round as `_walk` does, without waiting for the device but every few steps."""
        oracle = problem.oracle
        fooled = torch.zeros(len(problem), dtype=torch.bool, device=result.device)
        for step in range(self.length if len(live.rows) else 0):
            if step and step % self.patience == 0:
                live.take(oracle.active(live.rows).nonzero()[:, 0])
                if len(live.rows) == 0:
                    break
            found = self._ask(problem, live)
            done = oracle.active(live.rows) & ~found.kept
            overwrite_rows(result, live.rows, done, live.x)
            fooled[live.rows] |= done
            oracle.rest(live.rows, done)
            problem.iterations[live.rows] += found.kept.long()
            live.x = self._move(problem, live, found.parts)
            lost = found.kept & ~finite(live.x)
            overwrite_rows(result, live.rows, lost, live.x)
            oracle.rest(live.rows, lost)
        active = oracle.active(live.rows)
        overwrite_rows(result, live.rows, active, live.x)
        if self.rounds > 1 and len(live.rows):
            fooled[live.rows] |= active & problem.won(oracle.logits(live.x, live.rows), live.rows)
        return fooled

    def _leave(self, problem: Problem, live: Live, kept: Tensor) -> None:
        """Drop the samples that `kept` (m,) does not name, or let them idle."""
        if problem.oracle.idle is None:
            live.keep(kept)
        else:
            problem.oracle.rest(live.rows, ~kept)


def _by_lead(logits: Tensor, aim: Tensor) -> Tensor:
    """Order samples (n,) by how far they are from being fooled.

    A batch is evaluated in slices, and one whose samples are fooled together wastes nothing: a finished sample needs
    no gradient.
    """
    return margin(logits, aim).argsort(descending=True, stable=True)
