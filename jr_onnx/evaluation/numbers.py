"""How tables and reports write numbers and clauses: shares, intervals, differences, perturbations, p-values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jr_onnx.evaluation.summary import Comparison, Share


def percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.1f}%"


def interval(share: Share) -> str:
    """Write a confidence interval in per cent."""
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def with_interval(share: Share) -> str:
    """Write a share with its confidence interval."""
    return f"{percent(share.value)} ({interval(share)})"


def points(compared: Comparison) -> str:
    """Write a difference of two shares, in percentage points."""
    return f"{100 * compared.difference:+.1f}"


def points_interval(compared: Comparison) -> str:
    """Write the confidence interval of a difference, in percentage points."""
    return f"{100 * compared.low:+.1f} to {100 * compared.high:+.1f}"


def change(compared: Comparison) -> str:
    """Write a difference with its confidence interval, in percentage points."""
    return f"{points(compared)} ({points_interval(compared)})"


def relative(size: float) -> str:
    """Write a relative perturbation; infinity means that most samples survived."""
    return f"{100 * size:.2f}%" if math.isfinite(size) else "not found"


def p_value(value: float) -> str:
    """Write a p-value."""
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def sentence(clause: str, more: str = "") -> str:
    """Write a clause as a sentence: with a capital and a full stop, and `more` before that."""
    return f"{clause[:1].upper()}{clause[1:]}{more}."
