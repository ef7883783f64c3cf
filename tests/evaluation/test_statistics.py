"""Intervals and tests against values computed by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import xlogy

from jr_onnx.errors import InputError
from jr_onnx.evaluation.statistics import (
    area_interval,
    binomial_tail,
    mcnemar,
    mcnemar_one_sided,
    paired_difference,
    sign_test,
    wilson,
)


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (3, 10), (10, 10), (450, 1000), (1, 1)])
def test_wilson_is_scipys(successes: int, total: int) -> None:
    expected = stats.binomtest(successes, total).proportion_ci(method="wilson")
    assert wilson(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_ends_exactly_at_nothing_and_at_everything() -> None:
    assert {wilson(0, total)[0] for total in range(1, 1000)} == {0.0}
    assert {wilson(total, total)[1] for total in range(1, 1000)} == {1.0}


def test_wilson_without_trials_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("successes", "trials", "probability"),
    [(0, 5, 0.5), (5, 5, 0.5), (8, 10, 0.5), (30, 1000, 0.01), (7, 7, 0.0), (3, 9, 1.0)],
)
def test_binomial_tail_is_scipys(successes: int, trials: int, probability: float) -> None:
    expected = stats.binom.sf(successes - 1, trials, probability)
    assert binomial_tail(successes, trials, probability) == pytest.approx(expected, rel=1e-9)


def test_a_tail_is_no_more_than_everything() -> None:
    tails = [binomial_tail(1, trials, share) for trials in range(1, 200) for share in (0.3, 0.5, 0.9, 0.99)]
    assert max(tails) == 1.0, "whatever the sum of the logarithms rounds to"


def test_binomial_tail_refuses_more_successes_than_trials() -> None:
    with pytest.raises(InputError, match="4 successes in 3 trials"):
        binomial_tail(4, 3, 0.5)


def test_mcnemar_counts_only_discordant_pairs() -> None:
    strong = np.array([True] * 9 + [False] + [True] * 50)
    weak = np.array([False] * 9 + [True] + [True] * 50)
    p_value, gain = mcnemar_one_sided(strong, weak)
    assert p_value == pytest.approx(11 / 1024)  # P(X >= 9), X ~ B(10, 1/2)
    assert gain == pytest.approx(8 / 60)
    assert mcnemar(strong, weak) == pytest.approx(22 / 1024)
    assert mcnemar(strong, strong) == 1.0
    assert mcnemar_one_sided(np.array([True]), np.array([False])) == (0.5, 1.0)


def test_paired_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        one = generator.random(300) < 0.6
        other = one ^ (generator.random(300) < 0.2)
        _, low, high = paired_difference(one, other)
        covered += low <= 0.6 - (0.6 * 0.8 + 0.4 * 0.2) <= high
    assert covered >= 88  # 95 expected; 88 is three standard deviations below


def test_a_paired_difference_of_nobody_or_of_everybody_is_as_sure_as_wilson() -> None:
    nobody, everyone = np.zeros(50, dtype=bool), np.ones(50, dtype=bool)
    none = paired_difference(nobody, nobody)
    assert none == pytest.approx((0.0, -wilson(0, 50)[1], wilson(0, 50)[1]), abs=1e-9)
    assert paired_difference(everyone, everyone) == pytest.approx(none, abs=1e-9)
    middle, low, high = paired_difference(everyone, nobody)
    assert (middle, high) == (1.0, 1.0)
    assert 0.5 < low < 0.95
    assert paired_difference(nobody[:0], nobody[:0]) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize(
    ("plus", "less", "total"), [(12, 3, 40), (1, 0, 1), (0, 1, 2), (2, 0, 3), (1, 1, 3), (0, 0, 2), (3, 3, 6)]
)
def test_a_paired_difference_ends_where_the_score_test_rejects(plus: int, less: int, total: int) -> None:
    places = np.arange(total)
    one, other = places < plus, (places >= plus) & (places < plus + less)
    _, low, high = paired_difference(one, other)

    def statistic(delta: float) -> float:
        # The likelihood of the counts where their shares differ by delta, maximised over the second on a fine grid.
        minus = np.linspace(max(0.0, -delta) + 1e-9, (1 - delta) / 2 - 1e-9, 400_001)
        same = total - plus - less
        logs = xlogy(plus, minus + delta) + xlogy(less, minus) + xlogy(same, 1 - 2 * minus - delta)
        best = minus[np.argmax(logs)]
        return float((plus - less - total * delta) / math.sqrt(total * (2 * best + delta * (1 - delta))))

    assert low == -1.0 or statistic(low) == pytest.approx(1.96, abs=1e-3)
    assert high == 1.0 or statistic(high) == pytest.approx(-1.96, abs=1e-3)
    assert (low == -1.0, high == 1.0) == (less == total, plus == total)


def test_an_area_of_one_has_an_interval_that_shrinks_with_the_images() -> None:
    few, many = area_interval(1.0, 10), area_interval(1.0, 100)
    assert few[1] == many[1] == 1.0
    assert 0.7 < few[0] < many[0] < 1.0
    low, high = area_interval(0.0, 10)
    assert (low, high) == pytest.approx((0.0, 1 - few[0]))
    low, high = area_interval(0.9, 50)
    assert low < 0.9 < high


def test_sign_test_takes_failures_for_infinite() -> None:
    near = np.array([1.0] * 12 + [math.inf, math.inf])
    far = np.array([2.0] * 11 + [math.inf, math.inf, 1.0])
    p_value, ratio = sign_test(near, far)
    assert p_value == pytest.approx(float(stats.binom.sf(11, 13, 0.5)))
    assert ratio == 0.5
    assert sign_test(far, near)[0] > 0.99


def test_sign_test_without_a_success_says_nothing() -> None:
    nothing = np.array([math.inf, math.inf])
    assert sign_test(nothing, nothing) == (1.0, 1.0)


@pytest.mark.parametrize(("area", "count"), [(0.5, 1), (0.5, 2), (0.9, 50), (0.62, 200), (1.0, 10), (0.0, 7)])
def test_the_ends_of_an_areas_interval_are_where_the_score_test_rejects(area: float, count: int) -> None:
    def distance(true: float) -> float:
        # Hanley and McNeil 1982, equation 2, for `count` positives and as many negatives.
        first, second = true / (2 - true), 2 * true**2 / (1 + true)
        pairs = (count - 1) * (first - true**2) + (count - 1) * (second - true**2)
        return 1.959963984540054 * math.sqrt(max(0.0, true * (1 - true) + pairs) / count**2)

    low, high = area_interval(area, count)
    assert low <= area <= high
    assert high - low > 0.05
    for end in (low, high):
        # Halving leaves 2**-60; the distance itself is good to some ulps of 1.
        assert abs(end - area) == pytest.approx(distance(end), abs=1e-12)


def test_an_area_without_images_is_unknown() -> None:
    assert area_interval(0.5, 0) == (0.0, 1.0)
    assert area_interval(0.5, 1) != (0.0, 1.0)


@pytest.mark.parametrize("z", [1.0, 2.5758293035489004])
def test_the_level_of_an_interval_can_be_chosen(z: float) -> None:
    level = 2 * float(stats.norm.cdf(z)) - 1
    expected = stats.binomtest(13, 40).proportion_ci(confidence_level=level, method="wilson")
    assert wilson(13, 40, z) == pytest.approx((expected.low, expected.high), abs=1e-12)
    one, other = np.arange(40) < 13, np.zeros(40, dtype=bool)
    _, low, high = paired_difference(one, other, z)
    _, usual_low, usual_high = paired_difference(one, other)
    assert (low > usual_low, high < usual_high) == (z < 1.96, z < 1.96)


def test_a_sign_test_compares_failures_and_images_that_needed_no_perturbation() -> None:
    """Ratios: 0/0 counts as 1, success against failure as 0, failure against success as infinity."""
    one = np.array([0.0, 0.0, 0.0, 1.0, math.inf])
    other = np.array([0.0, 0.0, 0.0, math.inf, math.inf])
    assert sign_test(one, other) == (0.5, 1.0)  # the median of 1, 1, 1, 0; one sample differs
    failed, won = np.array([math.inf, math.inf, 3.0]), np.array([1.0, 0.0, math.inf])
    assert sign_test(failed, won) == (pytest.approx(7 / 8), math.inf)
    assert sign_test(won, failed) == (pytest.approx(4 / 8), 0.0)
    assert sign_test(np.array([1.0]), np.array([0.0])) == (1.0, math.inf)
