"""The entry of every attack: validate, run the one hook, project, and measure what came out.

A subclass is a frozen dataclass whose fields are its parameters, and implements `_search`. It never reports its own
success: `run` evaluates every candidate again on the exact model, treats non-finite values as failure, and counts.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack import inputs, norms
from jr_onnx.attack.cpu import thread_pool
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.norms import Ball, Norm, require_norm
from jr_onnx.attack.objectives import aim_of, finite, fooled
from jr_onnx.attack.oracle import Oracle, Tally
from jr_onnx.attack.result import AttackResult
from jr_onnx.attack.surrogate import parse_backward
from jr_onnx.attack.target import Target
from jr_onnx.errors import InputError, RefusalError

DECISION_DRAWS = 32
"""Evaluations that decide whether a random model is fooled; the majority counts."""


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
        """Tell which of the samples `rows` (m,) are fooled by logits (m, K)."""
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
        seed: Of all random numbers.
    """

    name: ClassVar[str]
    norms: ClassVar[tuple[Norm, ...]] = norms.NORMS
    needs_gradient: ClassVar[bool] = True

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

    def spec(self) -> dict[str, Any]:
        """Return name and parameters, ready for JSON."""
        return {"name": self.name, **dataclasses.asdict(self)}

    @final
    def run(
        self,
        target: Target,
        images: Tensor | npt.NDArray[Any],
        labels: Tensor | npt.NDArray[Any],
        *,
        source: Target | None = None,
        goals: Tensor | npt.NDArray[Any] | None = None,
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
        with thread_pool(target.threaded and target.device.type == "cpu") as pool:
            parts = [
                self._run_batch(target, source, checked.part(start, start + batch_size), pool)
                for start in range(0, len(checked), batch_size)
            ]
        return AttackResult.join(parts)

    @abstractmethod
    def _search(self, problem: Problem) -> Tensor:
        """Return one candidate per sample (n, C, H, W); what it is worth is measured by the caller."""

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

    def _run_batch(
        self, target: Target, source: Target, batch: inputs.Samples, pool: ThreadPoolExecutor | None
    ) -> AttackResult:
        judge = _Judge(target, self.seed, pool)
        aim = aim_of(batch.labels, batch.goals)
        clean = judge.decide(batch.pixels, aim_of(batch.labels, None))
        inputs.check_classes(batch, clean.classes)
        correct = clean.finite & ~clean.won
        already = clean.won if batch.goals is None else judge.decide(batch.pixels, aim).won
        attacked = (correct if batch.goals is None else clean.finite & ~already).nonzero()[:, 0]
        tally = Tally(len(attacked), target.device)
        iterations = torch.zeros_like(tally.forward)
        pixels = batch.pixels.clone()
        values = target.from_pixels(batch.pixels)
        moved = values.clone()
        if len(attacked):
            low, high = target.bounds
            oracle = Oracle(target, source, tally, self.seed, self.draws, pool)
            chosen = batch.indices[attacked.cpu().numpy()]
            problem = Problem(
                values[attacked], aim[attacked], chosen, oracle, low, high, clean.classes, Noise(self.seed), iterations
            )
            candidates = self._finish(problem, self._search(problem).detach())
            moved[attacked] = candidates
            pixels[attacked] = torch.where(
                norms.expand((candidates == values[attacked]).flatten(1).all(1), candidates),
                batch.pixels[attacked],
                target.to_pixels(candidates),
            )
        final = judge.decide(pixels, aim)
        lost = ~final.finite
        success = torch.where(clean.finite, final.won, False)
        found = norms.distances(moved, values)

        def everywhere(counts: Tensor) -> Tensor:
            return torch.zeros(len(batch), dtype=torch.int64).index_copy(0, attacked.cpu(), counts.cpu())

        return AttackResult(
            indices=batch.indices,
            adversarials=pixels.cpu(),
            correct=correct.cpu(),
            success=success.cpu(),
            fooling_rate=final.rate.cpu(),
            distances={norm: size.cpu() for norm, size in found.items()},
            relative={norm: size.cpu() for norm, size in norms.relative_distances(found, values).items()},
            iterations=everywhere(iterations),
            forward=everywhere(tally.forward),
            backward=everywhere(tally.backward),
            nonfinite=everywhere(tally.nonfinite) + lost.cpu().long(),
            zero_gradient=everywhere(tally.zero_gradient),
            units=target.units,
        )

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


@dataclass(slots=True)
class _Decision:
    """The verdict on n images: who is fooled, how often, with finite logits."""

    won: Tensor
    rate: Tensor
    finite: Tensor
    classes: int


class _Judge:
    """Measures success on the exact model; a random one by repeated evaluation with draws no attack has seen."""

    def __init__(self, target: Target, seed: int, pool: ThreadPoolExecutor | None) -> None:
        self.target = target
        self.noise = Noise(seed)
        self.pool = pool

    def decide(self, pixels: Tensor, aim: Tensor) -> _Decision:
        """Evaluate pixels (n, C, H, W)."""
        view = self.target.in_units("pixel")
        draws = DECISION_DRAWS if view.is_random else 1
        rate = torch.zeros(len(pixels), dtype=torch.float64, device=pixels.device)
        good = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        classes = 0
        rows = torch.arange(len(pixels), device=pixels.device)
        for number in range(draws):
            model = view.draw(self.noise.word("decision draw", number))
            oracle = Oracle(model, model, Tally(len(pixels), pixels.device), 0, 1, self.pool)
            logits = oracle.logits(pixels, rows)
            rate += fooled(logits, aim) / draws
            good &= finite(logits)
            classes = logits.shape[1]
        return _Decision((rate >= 0.5) & good, rate, good, classes)


_POSITIVE = frozenset({"steps", "restarts", "eot", "queries", "classes", "step_size", "trust_radius"})
