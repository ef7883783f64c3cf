"""Which samples are fooled: the verdict of the exact model, which no attack can influence.

A model of one answer is asked once per point. What was asked during an attack is not asked again: `JudgeHistory` keeps
the points with the logits that the judge gave them, and a point counts as judged only if it is the same bit for bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from jr_onnx.attack.noise import Noise
from jr_onnx.attack.objectives import decided, fooled
from jr_onnx.attack.oracle import Oracle, Tally
from jr_onnx.attack.target import Target

DECISION_DRAWS = 32
"""Evaluations that decide whether a random model is fooled; the majority counts."""


_AT_ONCE = 256
"""Images in one evaluation of copies."""


@dataclass(slots=True)
class Decision:
    """The verdict on n images.

    Attributes:
        won: Which are fooled (n,).
        rate: Share of the evaluations that were (n,).
        finite: Which have an answer (n,); a class masked by minus infinity never is the answer.
        logits: Of a model of one answer (n, K); None of a random one.
    """

    won: Tensor
    rate: Tensor
    finite: Tensor
    logits: Tensor | None

    @classmethod
    def of(cls, logits: Tensor, aim: Tensor) -> Decision:
        """Decide by logits (n, K)."""
        won = fooled(logits, aim)
        return cls(won, won.double(), decided(logits), logits)


@dataclass(frozen=True, slots=True)
class KnownLogits:
    """Logits (m, K) that the judged model gave the images `rows` (m,) of a batch, as they are now."""

    rows: Tensor
    logits: Tensor


class Judge:
    """Measures success on the exact model; a random one by repeated evaluation with draws no attack has seen."""

    def __init__(self, target: Target, seed: int, pool: ThreadPoolExecutor | None) -> None:
        """Judge a target, on a pool's threads if there is one."""
        self.target = target
        self.pool = pool
        self._pixel_view = target.in_units("pixel")
        self._noise = Noise(seed)

    def classes(self, pixels: Tensor) -> int:
        """Return the number of logits, by asking about the first of some images."""
        return self._logits(self._pixel_view.draw(self._noise.word("decision draw", 0)), pixels[:1]).shape[1]

    def decide(self, pixels: Tensor, aim: Tensor) -> Decision:
        """Evaluate pixels (n, C, H, W)."""
        view = self._pixel_view
        if not view.is_random:
            return Decision.of(self._logits(view, pixels), aim)
        rate = torch.zeros(len(pixels), dtype=torch.float64, device=pixels.device)
        good = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        # Copies of an image are draws of it where every row has random numbers of its own.
        copies = max(1, min(DECISION_DRAWS, _AT_ONCE // max(1, len(pixels)))) if view.draws_apart else 1
        done = 0
        while done < DECISION_DRAWS:
            count = min(copies, DECISION_DRAWS - done)
            drawn = view.draw(self._noise.word("decision draw", done))
            for logits in self._logits(drawn, pixels.repeat(count, 1, 1, 1)).chunk(count):
                rate += fooled(logits, aim) / DECISION_DRAWS
                good &= decided(logits)
            done += count
        return Decision((rate >= 0.5) & good, rate, good, None)

    def decide_again(
        self,
        pixels: Tensor,
        aim: Tensor,
        clean: Decision,
        moved: Tensor | None = None,
        known: KnownLogits | None = None,
    ) -> Decision:
        """Evaluate images after an attack or for another aim, except those that were evaluated before.

        Args:
            pixels: The images now (n, C, H, W).
            aim: Label and goal (n, 2).
            clean: The verdict before.
            moved: Which differ from the clean image (n,); none by default.
            known: Logits that this model has given to some of the images already.
        """
        if clean.logits is None:
            return self.decide(pixels, aim)
        if moved is None:
            return Decision.of(clean.logits, aim)
        logits, unknown = clean.logits.clone(), moved
        if known is not None:
            rows = known.rows[moved[known.rows]]
            logits[rows] = known.logits[moved[known.rows]]
            unknown = moved.index_fill(0, rows, False)
        if bool(unknown.any()):
            logits[unknown] = self._logits(self._pixel_view, pixels[unknown])
        return Decision.of(logits, aim)

    def _logits(self, view: Target, pixels: Tensor) -> Tensor:
        oracle = Oracle(view, view, Tally(len(pixels), pixels.device), 0, 1, self.pool)
        return oracle.logits(pixels, torch.arange(len(pixels), device=pixels.device))
