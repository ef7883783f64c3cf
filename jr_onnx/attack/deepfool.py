"""DeepFool as the paper uses it (Moosavi-Dezfooli et al., 2016; paper, section 2.1).

Per step and sample: rank the classes by logit; for each of the `classes` runners-up k find the distance to the
linearised boundary,

    per_k = (z_y - z_k) / ||g_k||_q,    g_k = grad(z_k - z_y),    q = 1 for L-infinity, 2 for L2

and step over the nearest one by 1.02 (per + 1e-4) along sign(g) or g / (||g||_2 + 1e-6). A sample stops when it is
fooled. There is no search for the smallest adversarial: the last point is the result, as in the authors' code.
Where every g_k is zero (units switched off by a large kappa) the step is 0 times infinity; the authors' code then
produces NaN images and counts them as fooled. Here such a sample ends as a counted failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jr_onnx.attack.accelerator import overwrite
from jr_onnx.attack.base import Problem
from jr_onnx.attack.fgsm import PaperAttack
from jr_onnx.attack.norms import Norm, dual_lengths, expand
from jr_onnx.attack.oracle import Computation, QueryResult
from jr_onnx.attack.stepwise import Live
from jr_onnx.errors import InputError

OVERSHOOT = 1.02
NUDGE = 1e-4
"""The authors' constants: go 2 per cent beyond the boundary, and 1e-4 more."""


@dataclass(frozen=True, kw_only=True)
class DeepFool(PaperAttack):
    """DeepFool in L-infinity (the paper's DF) or L2 (DF2).

    Attributes:
        steps: At most this many; the paper takes 40 on MNIST and 7 on CIFAR-10.
        classes: Other classes to consider, those with the greatest logits.
    """

    name: ClassVar[str] = "deepfool"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    patience: ClassVar[int] = 1  # an idle sample costs a backward pass for every class

    steps: int = 40
    classes: int = 9

    def __post_init__(self) -> None:
        """Refuse to average: the nearest class of a mean is not the mean of nearest classes."""
        super().__post_init__()
        if self.eot != 1:
            raise InputError(f"eot of {self.name} is {self.eot}, expected 1", hint="Use an attack on a loss, as apgd")

    @property
    def length(self) -> int:
        """Steps of one round."""
        return self.steps

    def _ask(self, problem: Problem, live: Live) -> QueryResult:
        width = 1 if problem.targeted else min(self.classes, problem.classes - 1)
        work = nearest_boundary(self.norm, width, problem.targeted)
        return problem.oracle.differentiate(live.x, live.rows, live.aim, work, backwards=width, screen=problem.won)

    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        distance, direction, _ = parts
        stuck = ~torch.isfinite(distance)
        step = overshoot(distance, direction, self.norm)
        step.masked_fill_(expand(stuck, step), float("nan"))
        return self._clip(problem, live, step.add_(live.x))


def overshoot(distance: Tensor, direction: Tensor, norm: Norm) -> Tensor:
    """Return the step of length 1.02 (distance + 1e-4) along a gradient (m, ...); works in place on it."""
    size = (distance + NUDGE) * OVERSHOOT
    if norm == "linf":
        return direction.sign_().mul_(expand(size, direction))
    return direction.mul_(expand(size / (dual_lengths(direction, "l2") + 1e-6), direction))


def nearest_boundary(norm: Norm, width: int, targeted: bool) -> Computation:
    """Return the work that finds the nearest of the `width` best other classes, or of the goals.

    It makes one backward pass per class and holds two gradients at a time, not all of them. It returns the
    distance (n,), the gradient towards the nearest class (n, C, H, W), and that class (n,).
    """

    def work(logits: Tensor, leaf: Tensor, aim: Tensor) -> tuple[Tensor, ...]:
        values = logits.detach()
        others, reference = _rank(values, aim, width, targeted)
        everyone = torch.arange(len(values), device=values.device)
        best = torch.full_like(values[:, 0], float("inf"))
        direction = torch.zeros_like(leaf)
        chosen = others[:, 0]
        for column in range(others.shape[1]):
            other = others[:, column]
            cotangent = torch.zeros_like(values)
            cotangent[everyone, other] = 1.0
            cotangent[everyone, reference] -= 1.0
            last = column + 1 == others.shape[1]
            (slope,) = torch.autograd.grad(logits, leaf, cotangent, retain_graph=not last)
            gap = values[everyone, reference] - values[everyone, other]
            distance = gap / dual_lengths(slope, norm)
            nearer = distance < best  # false for NaN (0 / 0)
            best = torch.where(nearer, distance, best)
            overwrite(direction, nearer, slope)
            chosen = torch.where(nearer, other, chosen)
        return best, direction, chosen

    return work


def _rank(values: Tensor, aim: Tensor, width: int, targeted: bool) -> tuple[Tensor, Tensor]:
    """Return the classes to reach (n, k), by falling logit, and the class to leave (n,)."""
    if targeted:
        goal = aim[:, 1:]
        return goal, values.scatter(1, goal, float("-inf")).argmax(1)
    label = aim[:, 0]
    ranked = values.scatter(1, label[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
    return ranked[:, :width], label
