"""Which images a report shows: for every attacker the three that were easiest to fool and the three hardest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jr_onnx.evaluation.decision import attacks_by_attacker
from jr_onnx.evaluation.examples import Choice, Kind
from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import Evaluation

SHOWN = 3
"""Images of each kind and attacker."""

_DIGITS = 6
"""Decimals of a size that count: a pixel is a float32, so a perturbation that uses the budget is it to within 6e-8."""


def choose(evaluation: Evaluation, outcomes: Outcomes) -> tuple[Choice, ...]:
    """Choose the images to show of the last model, the retrofit where there is one.

    An image's robustness is the least perturbation with which any attack of the attacker fooled it; images that none
    fooled are the most robust, and among them those that the strongest attacker needs most for. Only images that the
    served file classifies correctly count.

    Args:
        evaluation: What was found.
        outcomes: Model label -> entry -> outcome, on the same samples.
    """
    label = evaluation.models[-1].model
    found = attacks_by_attacker(evaluation, outcomes[label])
    strongest = np.min([_sizes(item) for members in found.values() for item in members], axis=0) if found else None
    choices: list[Choice] = []
    for attacker, members in found.items():
        sizes = np.stack([_sizes(item) for item in members])
        steps = np.stack([np.asarray(item.iterations) for item in members])
        least = sizes.min(axis=0)
        attempt = next((place for place, item in enumerate(members) if item.eps is not None), 0)
        best = np.where(np.isfinite(least), np.lexsort((steps, sizes), axis=0)[0], attempt)
        rows = np.flatnonzero(np.asarray(members[0].served_correct, dtype=bool))
        effort = steps[best, np.arange(steps.shape[1])]
        ranked = rows[np.lexsort((rows, effort[rows], strongest[rows] if strongest is not None else rows, least[rows]))]
        easiest = [row for row in ranked[:SHOWN] if np.isfinite(least[row])]
        hardest = list(ranked[max(len(easiest), len(ranked) - SHOWN) :][::-1])
        kinds: tuple[tuple[Kind, Sequence[int]], ...] = (("least robust", easiest), ("most robust", hardest))
        choices += [
            Choice(attacker, label, kind, int(members[0].indices[row]), members[best[row]].entry)
            for kind, chosen in kinds
            for row in chosen
        ]
    return tuple(choices)


def _sizes(item: Outcome) -> npt.NDArray[np.float64]:
    """Return the perturbations (N,) that fooled the served file, infinity where none did; rounding is no difference."""
    return np.round(item.served_minimal, _DIGITS)
