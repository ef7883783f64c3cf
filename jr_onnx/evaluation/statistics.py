"""Intervals and paired tests for robustness figures; exact where the counts are small."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError

Bools = npt.NDArray[np.bool_]
_Z95 = 1.959963984540054


def wilson(successes: int, total: int, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927), 95 % by default; (0, 1) for no trials."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    middle = share + z * z / (2 * total)
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == total else (middle + spread) / scale
    return max(0.0, low), min(1.0, high)


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


def paired_difference(one: Bools, other: Bools, *, seed: int = 0, rounds: int = 2000) -> tuple[float, float, float]:
    """Return the difference of two shares on the same samples, with a 95 % paired bootstrap interval.

    Returns:
        Difference (one minus other), lower and upper end.
    """
    if len(one) == 0:
        return 0.0, 0.0, 0.0
    difference = one.astype(np.int64) - other.astype(np.int64)
    plus, minus, total = int(np.sum(difference == 1)), int(np.sum(difference == -1)), len(difference)
    # Resampling with replacement draws these three counts from a multinomial distribution.
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(total, [plus / total, minus / total, (total - plus - minus) / total], size=rounds)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / total, [0.025, 0.975])
    return (plus - minus) / total, float(low), float(high)


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
