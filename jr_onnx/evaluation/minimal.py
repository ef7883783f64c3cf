"""The least perturbation that fools a model: per sample, the best of all attacks that look for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.statistics import sign_test
from jr_onnx.records import Record

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MinimalFigures(Record):
    """Relative minimal perturbation in one norm (paper, eq. 12), over the samples that were classified correctly.

    Attributes:
        success_rate: Share of them that any attack fooled.
        median_relative: Median, with failures as infinity.
        mean_relative: Mean over the fooled samples; 0 where there is none.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.minimal_perturbation/1"
    norm: str
    success_rate: float
    median_relative: float
    mean_relative: float
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MinimalComparison(Record):
    """Retrofit against original, on the samples that both classify correctly.

    Attributes:
        ratio: Median over the samples of the retrofit's perturbation divided by the original's.
        p_value: P-value of the two-sided sign test.
        samples: How many samples were compared.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.minimal_comparison/1"
    norm: str
    ratio: float
    p_value: float
    samples: int


def minimal_outcomes(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Return the adaptive attacks without a budget, by norm."""
    found: dict[str, list[Outcome]] = {}
    for item in outcomes:
        if item.protocol == "adaptive" and item.eps is None:
            found.setdefault(item.norm, []).append(item)
    return dict(sorted(found.items()))


def least(members: Sequence[Outcome]) -> Floats:
    """Return per sample the least relative perturbation (N,): infinity where all failed, 0 where none was needed."""
    sizes = [np.where(np.asarray(item.success, dtype=bool), np.asarray(item.relative), math.inf) for item in members]
    result: Floats = np.min(sizes, axis=0)
    return result


def minimal_figures(outcomes: Sequence[Outcome]) -> tuple[MinimalFigures, ...]:
    """Sum up the minimal perturbations of one model."""
    found = []
    for norm, members in minimal_outcomes(outcomes).items():
        sizes = least(members)[members[0].attacked]
        won = sizes[np.isfinite(sizes)]
        found.append(
            MinimalFigures(
                norm,
                len(won) / max(1, len(sizes)),
                median(sizes) if len(sizes) else 0.0,
                float(won.mean()) if len(won) else 0.0,
                tuple(item.entry for item in members),
            )
        )
    return tuple(found)


def compare_minimal(retrofit: Sequence[Outcome], original: Sequence[Outcome]) -> tuple[MinimalComparison, ...]:
    """Compare two models on the same samples, norm by norm."""
    new, old = minimal_outcomes(retrofit), minimal_outcomes(original)
    return tuple(_compare(norm, new[norm], old[norm]) for norm in new if norm in old)


def _compare(norm: str, new: Sequence[Outcome], old: Sequence[Outcome]) -> MinimalComparison:
    both = new[0].attacked & old[0].attacked
    smaller, larger = least(new)[both], least(old)[both]
    below, ratio = sign_test(smaller, larger)
    above, _ = sign_test(larger, smaller)
    return MinimalComparison(norm, ratio, min(1.0, 2 * min(below, above)), int(both.sum()))


def median(sizes: Floats) -> float:
    """Return the median of sizes (N,), N > 0; some may be infinite."""
    # NumPy's median interpolates between the two in the middle, which gives NaN for two infinities.
    ordered = np.sort(sizes)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return float(middle.mean())
