"""Which images a report shows: for every attacker and model the three easiest to fool and the three hardest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from jr_onnx.evaluation.decision import attacks_by_attacker
from jr_onnx.evaluation.examples import Choice, Kind
from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import Evaluation

SHOWN = 3
"""Images of each kind, attacker and model."""

_DIGITS = 6
"""Decimals of a size that count: a pixel is a float32, so a perturbation that uses the budget is it to within 6e-8."""


def choose(evaluation: Evaluation, outcomes: Outcomes) -> tuple[Choice, ...]:
    """Choose the images to show of every model, attacker by attacker.

    An image's robustness is the least perturbation with which any attack of the attacker fooled the model; images that
    none fooled are the most robust, and among them those that the strongest attacker needs most for. Only images that
    the served file classifies correctly count.

    Args:
        evaluation: What was found.
        outcomes: Model label -> entry -> outcome, on the same samples.
    """
    found = {
        figures.model: attacks_by_attacker(evaluation, outcomes[figures.model])
        for figures in evaluation.models
        if figures.model in outcomes
    }
    attackers = dict.fromkeys(attacker for members in found.values() for attacker in members)
    return tuple(
        choice
        for attacker in attackers
        for label, members in found.items()
        if attacker in members
        for choice in _of_one(label, attacker, members)
    )


def _of_one(label: str, attacker: str, found: Mapping[str, Sequence[Outcome]]) -> list[Choice]:
    """Choose the images of one model and one attacker, given the attacks of all attackers on that model."""
    members = found[attacker]
    strongest = np.min([_sizes(item) for attacks in found.values() for item in attacks], axis=0)
    sizes = np.stack([_sizes(item) for item in members])
    steps = np.stack([np.asarray(item.iterations) for item in members])
    least = sizes.min(axis=0)
    attempt = next((place for place, item in enumerate(members) if item.eps is not None), 0)
    best = np.where(np.isfinite(least), np.lexsort((steps, sizes), axis=0)[0], attempt)
    rows = np.flatnonzero(np.asarray(members[0].served_correct, dtype=bool))
    effort = steps[best, np.arange(steps.shape[1])]
    ranked = rows[np.lexsort((rows, effort[rows], strongest[rows], least[rows]))]
    easiest = [row for row in ranked[:SHOWN] if np.isfinite(least[row])]
    hardest = list(ranked[max(len(easiest), len(ranked) - SHOWN) :][::-1])
    kinds: tuple[tuple[Kind, Sequence[int]], ...] = (("least robust", easiest), ("most robust", hardest))
    return [
        Choice(attacker, label, kind, int(members[0].indices[row]), members[best[row]].entry)
        for kind, chosen in kinds
        for row in chosen
    ]


def _sizes(item: Outcome) -> npt.NDArray[np.float64]:
    """Return the perturbations (N,) that fooled the served file, infinity where none did; rounding is no difference."""
    return np.round(item.served_minimal, _DIGITS)
