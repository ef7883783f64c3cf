"""The frame of the attacks that look for the smallest perturbation, and the way back to the boundary.

A sample's smallest adversarial of all steps is kept, never the last one, and is then drawn back along the segment to
the clean image by bisection. A sample without any adversarial fails: its minimal distance is infinite.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jr_onnx.attack.accelerator import overwrite
from jr_onnx.attack.base import GradientAttack, Problem
from jr_onnx.attack.norms import expand, lengths
from jr_onnx.attack.objectives import Objective


@dataclass(slots=True)
class Hunt:
    """The state of a minimal attack; every tensor has one row per sample of the problem.

    Attributes:
        x: Where the samples are.
        step: Number of this step, from 0.
        loss: The objective at `x` (n,).
        gradient: Its gradient at `x`.
        hit: `x` is adversarial (n,).
        best: The smallest adversarial so far; meaningless where `best_size` is infinite.
        best_size: Its norm (n,).
        state: Whatever the attack keeps.
    """

    x: Tensor
    loss: Tensor
    gradient: Tensor
    hit: Tensor
    best: Tensor
    best_size: Tensor
    step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MinimalAttack(GradientAttack):
    """Base of the minimal attacks; a subclass says where to look next.

    Attributes:
        steps: Gradient steps.
        bisections: Evaluations of the way back to the boundary; 0 for none.
    """

    steps: int = 200
    bisections: int = 10

    @abstractmethod
    def _objective(self) -> Objective:
        """What to differentiate."""

    @abstractmethod
    def _next(self, problem: Problem, hunt: Hunt) -> Tensor:
        """Return the next points (n, C, H, W); the caller clips them to the box."""

    def _search(self, problem: Problem) -> Tensor:
        x = problem.images.clone()
        size = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
        hunt = Hunt(x, torch.zeros_like(size), x, torch.zeros_like(size, dtype=torch.bool), x.clone(), size)
        for step in range(self.steps):
            hunt.step = step
            found = problem.oracle.gradient(hunt.x, problem.rows, self._objective(), problem.aim)
            hunt.loss, hunt.gradient = found.parts
            self._record(problem, hunt, problem.won(found.logits, problem.rows))
            problem.iterations += 1
            hunt.x = self._next(problem, hunt).clamp_(problem.low, problem.high)
        self._record(problem, hunt, problem.won(problem.oracle.logits(hunt.x, problem.rows), problem.rows))
        found_one = torch.isfinite(hunt.best_size).nonzero()[:, 0]
        result = problem.images.clone()
        result[found_one] = bisect(problem, found_one, hunt.best[found_one], self.bisections)
        return result

    def _record(self, problem: Problem, hunt: Hunt, hit: Tensor) -> None:
        """Note who is adversarial now, and keep the smaller perturbations."""
        size = lengths(hunt.x - problem.images, self.norm)
        better = hit & (size < hunt.best_size)
        hunt.hit = hit
        overwrite(hunt.best, better, hunt.x)
        hunt.best_size = torch.where(better, size, hunt.best_size)


def bisect(problem: Problem, rows: Tensor, points: Tensor, evaluations: int) -> Tensor:
    """Draw adversarial points (m, C, H, W) back towards their clean images.

    Keeps an adversarial end and a harmless end of each segment and halves it `evaluations` times: the result is
    adversarial, and within 2 ** -evaluations of the segment from a point that is not.
    """
    if len(rows) == 0:
        return points
    clean = problem.images[rows]
    near = torch.zeros(len(rows), dtype=points.dtype, device=points.device)
    far = torch.ones_like(near)
    best = points.clone()
    for _ in range(evaluations):
        middle = (near + far) / 2
        x = clean + expand(middle, clean) * (points - clean)
        won = problem.won(problem.oracle.logits(x, rows), rows)
        overwrite(best, won, x)
        far, near = torch.where(won, middle, far), torch.where(won, near, middle)
    return best


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Anneal from `first` to `last` along half a cosine."""
    share = step / max(steps - 1, 1)
    return last + (first - last) * (1 + float(torch.cos(torch.tensor(torch.pi * share)))) / 2
