from __future__ import annotations

import gc
import math
import time

import numpy as np
import pytest

from jr_onnx.bench.clock import CLOCKS, interleave, median_interval, ratios
from jr_onnx.errors import InputError


def test_every_round_runs_everything_once_in_changing_order() -> None:
    calls: list[str] = []
    ticks: list[int] = []
    names = ("a", "b", "c")
    runs = [lambda name=name: calls.append(name) for name in names]
    times = interleave(runs, 30, progress=lambda: ticks.append(len(calls)))
    assert times.shape == (30, 3)
    assert np.all(times >= 0)
    warm_up = len(calls) - 90
    measured = [tuple(calls[start : start + 3]) for start in range(warm_up, len(calls), 3)]
    assert all(sorted(chunk) == ["a", "b", "c"] for chunk in measured)
    assert len(set(measured)) > 1
    assert len(ticks) == 30


def test_times_and_ratios_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0

    def spend(nanoseconds: int) -> None:
        nonlocal now
        now += nanoseconds

    monkeypatch.setitem(CLOCKS, "wall", lambda: now)
    times = interleave([lambda: spend(2_000_000), lambda: spend(6_000_000)], 8)
    assert np.all(times == [2.0, 6.0])
    assert median_interval(ratios(times, 1)) == (3.0, 3.0, 3.0)


def test_the_cpu_clock_leaves_waiting_out() -> None:
    """Sleeping for a second takes next to no time of the processor, however busy the machine is."""
    assert interleave([lambda: time.sleep(0.3)], 1, clock="cpu")[0, 0] < 150


def test_the_collector_is_put_back_even_after_an_error() -> None:
    count = 0

    def fail_later() -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise RuntimeError("stop")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="stop"):
        interleave([fail_later], 10)
    assert gc.isenabled()


def test_no_rounds_is_an_error() -> None:
    with pytest.raises(InputError, match="0 rounds"):
        interleave([], 0)


@pytest.mark.parametrize(
    ("count", "rank"),
    [(5, 0), (6, 0), (9, 1), (10, 1), (20, 5), (50, 17), (100, 39)],
)
def test_the_interval_is_the_textbooks(count: int, rank: int) -> None:
    """Ranks (from 0) of the lower end for 95 %: the tables of nonparametric confidence intervals for the median."""
    values = np.random.default_rng(count).permutation(count).astype(float)
    middle, low, high = median_interval(values)
    assert middle == pytest.approx((count - 1) / 2)
    assert (low, high) == (rank, count - 1 - rank)
    outside = sum(math.comb(count, below) for below in range(rank + 1)) / 2**count
    assert outside <= 0.025 or count < 6


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        _, low, high = median_interval(random.exponential(1.0, 30))
        covered += low <= math.log(2) <= high
    # 2000 trials at 95 % or more: below 0.93 lies four standard deviations away.
    assert covered / 2000 > 0.93


def test_one_value_is_its_own_interval() -> None:
    assert median_interval(np.array([2.0])) == (2.0, 2.0, 2.0)
