"""The entry of every attack: validate, run the one hook, project, and measure what came out.

A subclass is a frozen dataclass whose fields are its parameters, and implements `_search`. It never reports its own
success: `run` evaluates every candidate again on the exact model, treats non-finite values as failure, and counts.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack import inputs, norms
from jr_onnx.attack.cpu import thread_pool
from jr_onnx.attack.history import JudgeHistory
from jr_onnx.attack.judging import Decision, Judge, KnownLogits
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.norms import Ball, Norm, require_norm
from jr_onnx.attack.objectives import aim_of, finite, fooled
from jr_onnx.attack.oracle import Oracle, Tally
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.attack.target import Target
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, RefusalError
from jr_onnx.evaluation.outcome import JsonLeaf
from jr_onnx.torchnet.precision import full_precision

EOT_DRAWS = 20
"""Draws of a random model that a gradient averages, in an evaluation that adapts."""


@dataclass(slots=True)
class Problem:
    """The samples that a hook works on; all of them are still classified correctly.

    Attributes:
        images: Clean images (n, C, H, W), in the units of the attack.
        aim: Label and goal (n, 2).
        indices: Global sample indices (n,), the keys of their noise.
        oracle: Access to the models.
        low: The least valid value.
        high: The greatest valid value.
        classes: How many logits the model has.
        targeted: Whether every sample has a goal.
        noise: Random numbers per sample.
        iterations: For the hook to write: steps taken (n,).
    """

    images: Tensor
    aim: Tensor
    indices: npt.NDArray[np.int64]
    oracle: Oracle
    low: float
    high: float
    classes: int
    targeted: bool
    noise: Noise
    iterations: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)

    @property
    def rows(self) -> Tensor:
        """Positions of all samples (n,)."""
        return torch.arange(len(self.images), device=self.images.device)

    def won(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return which of the samples `rows` (m,) are fooled by logits (m, K)."""
        return fooled(logits, self.aim[rows])

    def indices_of(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Return the global indices of the samples `rows`."""
        result: npt.NDArray[np.int64] = self.indices[rows.cpu().numpy()]
        return result


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Base of all attacks.

    Attributes:
        norm: The norm of the budget, or the one that is minimised.
        seed: Random seed.
    """

    name: ClassVar[str]
    norms: ClassVar[tuple[Norm, ...]] = norms.NORMS
    needs_gradient: ClassVar[bool] = True
    begins_clean: ClassVar[bool] = False
    """Whether `_search` first asks about all clean images, so that their logits also give the clean verdict."""

    norm: Norm = "linf"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that make no attack."""
        require_norm(self.norm, self.norms)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} of {self.name} is {value}, expected a finite number")
            if field.name in _POSITIVE and value is not None and value <= 0:
                raise InputError(f"{field.name} of {self.name} is {value}, expected a number above 0")
            if field.name == "eps" and value is not None and value < 0:
                raise InputError(f"eps of {self.name} is {value}, expected a number >= 0")

    @property
    def radius(self) -> float | None:
        """The budget that the result is projected to; None where the attack minimises or has no ball."""
        return None

    @property
    def draws(self) -> int:
        """How many draws of a random model each question averages."""
        return 1

    def spec(self) -> dict[str, JsonLeaf]:
        """Return the name, and the parameters that are numbers, words or flags, ready for JSON."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {"name": self.name, **{name: value for name, value in values if isinstance(value, _LEAVES)}}

    @final
    def run(
        self,
        target: Target,
        images: Tensor | Array,
        labels: Tensor | Array,
        *,
        source: Target | None = None,
        goals: Tensor | Array | None = None,
        indices: npt.NDArray[np.int64] | None = None,
        batch_size: int = 512,
    ) -> AttackResult:
        """Attack images.

        Args:
            target: Decides about success.
            images: Pixels (N, C, H, W) in [0, 1].
            labels: True classes (N,).
            source: Gives gradients in place of the target (gray box, transfer); in the same units.
            goals: Wanted classes (N,); any wrong class will do by default.
            indices: Global indices (N,) of the samples, the keys of their random numbers; 0 to N-1 by default.
            batch_size: Samples in memory at once; results do not depend on it.

        Raises:
            InputError: Images, labels, goals or indices are malformed.
            RefusalError: The attack needs gradients and the source has none.
        """
        checked = inputs.check(images, labels, goals, indices, target)
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}, expected at least 1")
        source = self._source(target, source)
        pooled = target.threaded and target.device.type == "cpu"
        with full_precision(target.device), thread_pool(pooled) as pool:
            judge = Judge(target, self.seed, pool)
            classes = judge.classes(checked.pixels)
            inputs.check_classes(checked, classes)  # before a loss looks for a logit that is not there
            parts = [
                self._run_batch(judge, source, checked.part(start, start + batch_size), classes)
                for start in range(0, len(checked), batch_size)
            ]
        return AttackResult.join(parts)

    @abstractmethod
    def _search(self, problem: Problem) -> Tensor:
        """Return one candidate per sample (n, C, H, W); the caller measures its success."""

    def _source(self, target: Target, source: Target | None) -> Target:
        """Return the model that gives gradients."""
        source = target if source is None else source
        if source.units != target.units:
            raise InputError(f"the source works in {source.units} units and the target in {target.units}")
        if self.needs_gradient and not source.differentiable:
            raise RefusalError(
                f"{self.name} needs gradients, and {type(source).__name__} has none",
                hint="Use a black-box attack, or give a differentiable source",
            )
        return source

    def _run_batch(self, judge: Judge, source: Target, batch: inputs.Samples, classes: int) -> AttackResult:
        target, clean_aim = judge.target, aim_of(batch.labels, None)
        clean: Decision | None = None
        attacked = torch.ones_like(batch.labels, dtype=torch.bool)
        if not self.begins_clean or batch.goals is not None or target.is_random:
            clean = judge.decide(batch.pixels, clean_aim)
            attacked = _attacked(judge, batch, clean)
        rows = attacked.nonzero()[:, 0]
        images = target.from_pixels(batch.pixels)[rows]
        tally = Tally(len(rows), target.device)
        history = None if target.is_random else JudgeHistory(images)
        problem = Problem(
            images=images,
            aim=aim_of(batch.labels, batch.goals)[rows],
            indices=batch.indices[rows.cpu().numpy()],
            oracle=Oracle(target, source, tally, self.seed, self.draws, judge.pool, history, idling=target.runs_apart),
            low=target.bounds[0],
            high=target.bounds[1],
            classes=classes,
            targeted=batch.goals is not None,
            noise=Noise(self.seed),
            iterations=torch.zeros_like(tally.forward),
        )
        found = self._finish(problem, self._search(problem).detach()) if len(rows) else images
        if clean is None:
            known = None if history is None else history.clean_logits
            clean = judge.decide(batch.pixels, clean_aim) if known is None else Decision.of(known, clean_aim)
            attacked = _attacked(judge, batch, clean)
        return _judged(judge, batch, clean, attacked, rows, problem, found)

    def _finish(self, problem: Problem, candidates: Tensor) -> Tensor:
        """Replace non-finite candidates by the clean image, and bring the others into the ball and the box."""
        if candidates.shape != problem.images.shape:
            raise InputError(f"{self.name} returned {tuple(candidates.shape)} for {tuple(problem.images.shape)}")
        good = finite(candidates)
        problem.oracle.tally.nonfinite[~good] += 1
        usable = torch.where(norms.expand(good, candidates), candidates, problem.images)
        if self.radius is None:
            return usable.clamp(problem.low, problem.high)
        return Ball(problem.images, self.radius, self.norm, problem.low, problem.high).project_exactly(usable)


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Base of the attacks that differentiate.

    Attributes:
        backward: The backward pass at JumpReLU sites; see `parse_backward`.
        eot: Draws of a random model that each gradient averages; 1 is the naive attack.
    """

    backward: str = "exact"
    eot: int = 1

    def __post_init__(self) -> None:
        """Refuse an unknown backward pass."""
        super().__post_init__()
        parse_backward(self.backward)

    @property
    def draws(self) -> int:
        """How many draws of a random model each question averages."""
        return self.eot

    def _source(self, target: Target, source: Target | None) -> Target:
        chosen = super()._source(target, source)
        return chosen if self.backward == "exact" else chosen.with_backward(self.backward)


def _attacked(judge: Judge, batch: inputs.Samples, clean: Decision) -> Tensor:
    """Return which samples are attacked (n,): the correct ones, or with goals all that do not have their goal yet."""
    if batch.goals is None:
        return clean.finite & ~clean.won
    return clean.finite & ~judge.decide_again(batch.pixels, aim_of(batch.labels, batch.goals), clean).won


def _judged(
    judge: Judge,
    batch: inputs.Samples,
    clean: Decision,
    attacked: Tensor,
    rows: Tensor,
    problem: Problem,
    found: Tensor,
) -> AttackResult:
    """Measure what became of a batch, of which `rows` were searched from and only the `attacked` may have moved."""
    target = judge.target
    values = target.from_pixels(batch.pixels)
    points = values.index_copy(0, rows, found)
    points = torch.where(norms.expand(attacked, points), points, values)
    moved = (points != values).flatten(1).any(1)
    pixels = torch.where(points == values, batch.pixels, target.to_pixels(points))
    history, known = problem.oracle.history, None
    if history is not None and history.logits is not None:
        same = history.is_last(found) & (target.from_pixels(pixels) == points).flatten(1).all(1)[rows]
        known = KnownLogits(rows[same], history.logits[same])
    final = judge.decide_again(pixels, aim_of(batch.labels, batch.goals), clean, moved, known)
    sizes = norms.distances(points, values)

    def everywhere(counts: Tensor) -> Tensor:
        return torch.where(attacked, attacked.long().index_copy(0, rows, counts), 0).cpu()

    tally = problem.oracle.tally
    return AttackResult(
        indices=batch.indices,
        adversarials=pixels.cpu(),
        correct=(clean.finite & ~clean.won).cpu(),
        success=torch.where(clean.finite, final.won, False).cpu(),
        fooling_rate=final.rate.cpu(),
        distances={norm: size.cpu() for norm, size in sizes.items()},
        relative={norm: size.cpu() for norm, size in norms.relative_distances(sizes, values).items()},
        iterations=everywhere(problem.iterations),
        forward=everywhere(tally.forward),
        backward=everywhere(tally.backward),
        nonfinite=everywhere(tally.nonfinite) + (~final.finite).cpu().long(),
        zero_gradient=everywhere(tally.zero_gradient),
        units=target.units,
    )


_LEAVES = (bool, int, float, str, type(None))
_POSITIVE = frozenset({"steps", "restarts", "eot", "queries", "classes", "step_size", "trust_radius"})
