"""The security curve: robust accuracy against eps, for all budgets at once from the attacks that minimise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import ALL_ATTACKS, Evaluation, Share, share_of
from jr_onnx.records import Record

_POINTS = 60


@dataclass(frozen=True, slots=True)
class SecurityCurve(Record):
    """Robust accuracy of one model against budgets of one norm.

    Attributes:
        model: Its label.
        norm: linf, l2 or l1.
        eps: Budgets in pixel scale, increasing.
        robust: Share of all samples that no minimising attack fooled within each budget.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
        points: Worst cases of runs at a fixed budget: eps and share.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.security_curve/1"
    model: str
    norm: str
    eps: tuple[float, ...]
    robust: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    points: tuple[tuple[float, Share], ...] = ()


def security_curves(evaluations: Sequence[Evaluation], outcomes: Outcomes) -> tuple[SecurityCurve, ...]:
    """Return the curve of every model and norm in which attacks minimised.

    Args:
        evaluations: The main one, and others of the same models at other budgets, whose worst cases become points.
        outcomes: Of the main one: model label -> entry -> outcome.
    """
    curves = []
    for label, entries in outcomes.items():
        minimal = [item for item in entries.values() if item.protocol == "adaptive" and item.eps is None]
        curves += [
            _curve(label, norm, [item for item in minimal if item.norm == norm], evaluations)
            for norm in sorted({item.norm for item in minimal})
        ]
    return tuple(curves)


def _curve(label: str, norm: str, members: Sequence[Outcome], evaluations: Sequence[Evaluation]) -> SecurityCurve:
    correct = np.asarray(members[0].served_correct, dtype=bool)
    sizes = np.min([item.served_minimal for item in members], axis=0)
    finite = sizes[np.isfinite(sizes) & correct]
    edge = 1.1 * float(np.quantile(finite, 0.98)) if len(finite) else 1.0
    budgets = np.linspace(0, edge or 1.0, _POINTS)
    shares = [share_of(correct & (sizes > eps)) for eps in budgets]
    points = [
        (case.eps, case.robust)
        for evaluation in evaluations
        for figures in evaluation.models
        if figures.model == label
        for case in figures.worst
        if case.group == ALL_ATTACKS and case.norm == norm and case.eps is not None
    ]
    return SecurityCurve(
        label,
        norm,
        tuple(float(eps) for eps in budgets),
        tuple(share.value for share in shares),
        tuple(share.low for share in shares),
        tuple(share.high for share in shares),
        tuple(sorted(points, key=lambda point: point[0])),
    )
