"""Intervals and paired tests for robustness figures; exact where the counts are small."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError

Bools = npt.NDArray[np.bool_]
Z95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def wilson(successes: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927), 95 % by default; (0, 1) for no trials."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    middle = share + z * z / (2 * total)
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == total else (middle + spread) / scale
    return low, high


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """Return P(X >= successes) for X ~ Binomial(trials, probability), exactly, in logarithms."""
    if not 0 <= successes <= trials:
        raise InputError(f"found {successes} successes in {trials} trials")
    if successes == 0 or probability >= 1:
        return 1.0
    if probability <= 0:
        return 0.0
    counts = np.arange(successes, trials + 1)
    logs = (
        math.lgamma(trials + 1)
        - np.array([math.lgamma(count + 1) + math.lgamma(trials - count + 1) for count in counts])
        + counts * math.log(probability)
        + (trials - counts) * math.log1p(-probability)
    )
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def mcnemar_one_sided(strong: Bools, weak: Bools) -> tuple[float, float]:
    """Test whether `strong` is true more often than `weak` on the same samples (McNemar's test, exact form).

    Returns:
        The p-value, and the difference of the shares (strong minus weak).
    """
    gained, lost = int(np.sum(strong & ~weak)), int(np.sum(weak & ~strong))
    p_value = binomial_tail(gained, gained + lost, 0.5)
    return p_value, (gained - lost) / max(1, len(strong))


def mcnemar(one: Bools, other: Bools) -> float:
    """Return the two-sided exact p-value of McNemar's test on paired yes/no outcomes."""
    gained, lost = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    return min(1.0, 2 * binomial_tail(max(gained, lost), gained + lost, 0.5))


def paired_difference(one: Bools, other: Bools, z: float = Z95) -> tuple[float, float, float]:
    """Return the difference of two shares on the same samples, with Tango's score interval (Tango 1998), 95 %.

    Unlike a bootstrap interval it has a width where no sample differs, or every one does: there it is Wilson's.

    Returns:
        Difference (one minus other), lower and upper end; (0, -1, 1) without samples.
    """
    total = len(one)
    if total == 0:
        return 0.0, -1.0, 1.0
    plus, minus = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    middle = (plus - minus) / total
    high = _root(lambda delta: _tango(plus, minus, total, delta) + z, middle, 1.0)
    # The lower end is minus the upper end of the difference the other way round.
    low = -_root(lambda delta: _tango(minus, plus, total, delta) + z, -middle, 1.0)
    return middle, low, high


def _tango(plus: int, minus: int, total: int, delta: float) -> float:
    """Return the score statistic of a paired difference: of finding plus/total - minus/total where it is delta."""
    linear = -plus - minus + (2 * total - plus + minus) * delta
    constant = -minus * delta * (1 - delta)
    share = (math.sqrt(max(0.0, linear * linear - 8 * total * constant)) - linear) / (4 * total)
    variance = total * (2 * share + delta * (1 - delta))
    excess = plus - minus - total * delta
    if variance <= 0:
        return math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function is 0, by halving; the nearer end where it is not in between."""
    if falling(high) >= 0:
        return high
    for _ in range(60):  # a double has 53 digits
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def area_interval(area: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Return the 95 % score interval of the area under a ROC curve (Newcombe 2006, method 5).

    Its variance is Hanley and McNeil's at the end of the interval, not at `area`, so that it has a width at 1 too.

    Args:
        area: The area that was found.
        count: Positives, and as many negatives.
        z: Quantile of the normal distribution.
    """

    def excess(true: float) -> float:
        spread = (1 - true) / (2 - true) + true / (1 + true)
        return z * math.sqrt(true * (1 - true) * (1 + (count - 1) * spread)) / count

    if count == 0:
        return 0.0, 1.0
    high = _root(lambda true: excess(true) - (true - area), area, 1.0)
    low = 1 - _root(lambda true: excess(1 - true) - (area - (1 - true)), 1 - area, 1.0)
    return low, high


def sign_test(smaller: npt.NDArray[np.float64], larger: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Test whether one list of perturbation sizes is smaller than another on the same samples.

    Infinity means that the attack failed; two failures tie.

    Returns:
        The one-sided p-value of the sign test, and the median of smaller/larger over samples where either succeeded
        (a failure against a success counts as a ratio of infinity or 0).
    """
    below, above = int(np.sum(smaller < larger)), int(np.sum(larger < smaller))
    either = np.isfinite(smaller) | np.isfinite(larger)
    if not either.any():
        return 1.0, 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = smaller[either] / larger[either]
    ratio = np.where(np.isnan(ratio), 1.0, ratio)  # 0/0: both already misclassified
    return binomial_tail(below, below + above, 0.5), float(np.median(ratio))
