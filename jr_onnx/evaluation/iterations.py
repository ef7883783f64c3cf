"""Robust accuracy against the number of iterations: whether attacks were given enough of them (paper, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import Evaluation, Hits, share_of
from jr_onnx.records import Record

EXACT, GRADIENTS = "exact gradient", "all gradient attacks"
_STEPS = (1, 2, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class IterationCurve(Record):
    """Robust accuracy of one model against attacks that are stopped after so many iterations.

    Attributes:
        model: Its label.
        group: "exact gradient" or "all gradient attacks", all of a group together, each stopped after so many.
        iterations: Increasing, from 0.
        robust: Share of all samples that the served file classifies correctly and no attack of the group has fooled.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
        entries: The attacks.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.iteration_curve/1"
    model: str
    group: str
    iterations: tuple[int, ...]
    robust: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    entries: tuple[str, ...]


def iteration_curves(evaluation: Evaluation, outcomes: Outcomes) -> tuple[IterationCurve, ...]:
    """Return the curves of every model under the adaptive gradient attacks with the budget that was asked for.

    Attacks that minimise have no budget, and those that only query count queries, not iterations: both are left out.

    Args:
        evaluation: What was found.
        outcomes: Model label -> entry -> outcome, on the same samples.
    """
    run, curves = evaluation.run, []
    for label, entries in outcomes.items():
        found = [
            item
            for item in entries.values()
            if item.protocol == "adaptive" and (item.norm, item.eps) == (run.norm, run.eps) and item.view != "black_box"
        ]
        exact = [item for item in found if item.view == "exact"]
        groups = {EXACT: exact, GRADIENTS: found if len(found) > len(exact) else []}
        curves += [_curve(label, group, members) for group, members in groups.items() if members]
    return tuple(curves)


def alive_after(outcome: Outcome, iterations: int) -> Hits:
    """Return which samples (N,) are still classified correctly: a sample drops out at the step that fools it."""
    fooled = np.asarray(outcome.served_success, dtype=bool) & (np.asarray(outcome.iterations) <= iterations)
    result: Hits = np.asarray(outcome.served_correct, dtype=bool) & ~fooled
    return result


def _curve(label: str, group: str, members: Sequence[Outcome]) -> IterationCurve:
    most = max(max(item.iterations) for item in members)
    rounded = [step * 10**power for power in range(len(str(most))) for step in _STEPS]
    counts = [0, *(count for count in rounded if count < most), *([most] if most else [])]
    shares = [share_of(np.all([alive_after(item, count) for item in members], axis=0)) for count in counts]
    return IterationCurve(
        label,
        group,
        tuple(counts),
        tuple(share.value for share in shares),
        tuple(share.low for share in shares),
        tuple(share.high for share in shares),
        tuple(item.entry for item in members),
    )
