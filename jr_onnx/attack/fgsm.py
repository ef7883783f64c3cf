"""Sign steps without a ball, as the paper takes them (paper, section 2.1, eqs. 4 and 5).

What the paper calls PGD is the iterated fast gradient sign method with an early stop per sample: no ball, no
random start, and `eps` is the size of one step. 40 steps of 0.01 in normalised MNIST units move a pixel by at most 0.4,
which is 0.1232 of the pixel range. `pgd.PGD` is what others call PGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from jr_onnx.attack.base import Problem
from jr_onnx.attack.norms import Norm, expand
from jr_onnx.attack.objectives import finite
from jr_onnx.attack.stepwise import Live, StepwiseAttack
from jr_onnx.errors import InputError

Clip = Literal["range", "batch"]


@dataclass(frozen=True, kw_only=True)
class PaperAttack(StepwiseAttack):
    """Base of the paper's own attacks.

    A random model is asked about every sample at every step, as in the authors' code: a sample stands still in the
    steps whose draw it fools, and moves on in the others. So it ends where most draws are fooled, not one alone. (With
    `eot`, all steps ask the mean of the same draws, and a sample that fools it is done.)

    Attributes:
        clip: "range" clips to the valid range. "batch" clips, as the authors' code does, to the least and greatest
            value among the samples still under attack at that step: results then depend on the batch.
    """

    begins_clean: ClassVar[bool] = True

    clip: Clip = "range"

    def __post_init__(self) -> None:
        """Refuse an unknown clip."""
        super().__post_init__()
        if self.clip not in ("range", "batch"):
            raise InputError(f"clip of {self.name} is {self.clip!r}, expected range or batch")

    def _search(self, problem: Problem) -> Tensor:
        return self._walk_on(problem) if problem.oracle.varies else super()._search(problem)

    def _walk_on(self, problem: Problem) -> Tensor:
        """Walk every sample to the last step; those that the draw of a step misclassifies stand still in it."""
        result = problem.images.clone()
        live = Live(problem.rows, problem.images.clone(), problem.aim)
        self._begin(problem, live, 0)
        for _ in range(self.length):
            found = self._ask(problem, live)
            moving = found.kept.nonzero()[:, 0]
            if len(moving) == 0:
                continue
            parts = found.parts if problem.oracle.idle is None else tuple(part[moving] for part in found.parts)
            now = Live(live.rows[moving], live.x[moving], live.aim[moving])
            problem.iterations[now.rows] += 1
            live.x[moving] = self._move(problem, now, parts)
            usable = finite(live.x)
            result[live.rows[~usable]] = live.x[~usable]
            live.keep(usable)
            if len(live.rows) == 0:
                return result
        result[live.rows] = live.x
        return result

    def _clip(self, problem: Problem, live: Live, x: Tensor) -> Tensor:
        """Clip new points, and have them be points that pixels give exactly."""
        if self.clip == "batch":
            low, high = self._range(problem, live)
            return problem.oracle.judge.snap(x).clamp_(low, high)
        return problem.oracle.judge.snap(x).clamp_(problem.low, problem.high)

    @staticmethod
    def _range(problem: Problem, live: Live) -> tuple[Tensor, Tensor]:
        idle = problem.oracle.idle
        if idle is None:
            low, high = torch.aminmax(live.x)
            return low, high
        out = expand(idle[live.rows], live.x)
        return torch.where(out, torch.inf, live.x).amin(), torch.where(out, -torch.inf, live.x).amax()


@dataclass(frozen=True, kw_only=True)
class IteratedFGSM(PaperAttack):
    """The paper's "PGD": iterated FGSM until the sample is fooled.

    Attributes:
        eps: Size of one step.
        steps: At most this many; the paper takes 40 on MNIST and 7 on CIFAR-10.
    """

    name: ClassVar[str] = "paper-pgd"
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    eps: float = 0.01
    steps: int = 40

    @property
    def length(self) -> int:
        """Steps of one round."""
        return self.steps

    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        return self._clip(problem, live, live.x + parts[1].sign_().mul_(self.eps))


@dataclass(frozen=True, kw_only=True)
class FGSM(PaperAttack):
    """The fast gradient sign method: one step of size eps (Goodfellow et al., 2015).

    Attributes:
        eps: Size of the step, and so the L-infinity budget.
    """

    name: ClassVar[str] = "fgsm"
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    eps: float = 0.3

    @property
    def length(self) -> int:
        """Steps of one round."""
        return 1

    @property
    def radius(self) -> float | None:
        """The L-infinity budget."""
        return self.eps

    def _move(self, problem: Problem, live: Live, parts: tuple[Tensor, ...]) -> Tensor:
        return self._clip(problem, live, live.x + parts[1].sign_().mul_(self.eps))
