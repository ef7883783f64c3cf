"""How tables and reports write numbers and clauses: shares, intervals, differences, perturbations, p-values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jr_onnx.evaluation.summary import Comparison, Share


class Bounded(Protocol):
    """What has a 95 % confidence interval."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.1f}%"


def interval(share: Share) -> str:
    """Write a confidence interval in per cent."""
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def with_interval(share: Share) -> str:
    """Write a share with its confidence interval."""
    return f"{percent(share.value)} ({interval(share)})"


def points(difference: float) -> str:
    """Write a difference of two shares, in percentage points."""
    return f"{100 * difference:+.1f}"


def points_interval(compared: Bounded) -> str:
    """Write the confidence interval of a difference, in percentage points."""
    return f"{points(compared.low)} to {points(compared.high)}"


def change(compared: Comparison) -> str:
    """Write a difference with its confidence interval, in percentage points."""
    return f"{points(compared.difference)} ({points_interval(compared)})"


def relative(size: float) -> str:
    """Write a relative perturbation; infinity means that most samples survived."""
    return f"{100 * size:.2f}%" if math.isfinite(size) else "not found"


def p_value(value: float) -> str:
    """Write a p-value."""
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def sentence(clause: str, more: str = "") -> str:
    """Write a clause as a sentence: with a capital and a full stop, and `more` before that."""
    return f"{clause[:1].upper()}{clause[1:]}{more}."
