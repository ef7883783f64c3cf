"""Time several things fairly on a machine that is not ours alone: interleaved rounds, ratios pair by pair.

In every round each thing runs once, in random order, so that a slow moment of the machine hits all alike; a ratio is
taken within its round, and the median over the rounds drops those in which a disturbance hit only one of the two.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError

Clock = Literal["wall", "cpu"]
CLOCKS: Final[dict[str, Callable[[], int]]] = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
"""wall: what a user waits. cpu: what this thread computed, without waiting for a core on a busy machine."""

Times = npt.NDArray[np.float64]
_WARM_UPS = 3


def interleave(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    *,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
    clock: Clock = "wall",
) -> Times:
    """Run everything once in every round.

    Args:
        runs: What to time.
        rounds: How often.
        seed: Seed of the order.
        progress: Called after every round.
        clock: Which time; see `CLOCKS`.

    Returns:
        Times in milliseconds, (rounds, things).

    Raises:
        InputError: There are no rounds.
    """
    if rounds < 1:
        raise InputError(f"a benchmark of {rounds} rounds was asked for, expected at least 1")
    order, now = np.random.default_rng(seed), CLOCKS[clock]
    times = np.empty((rounds, len(runs)))
    for run in runs:
        for _ in range(_WARM_UPS):
            run()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for row in times:
            for index in order.permutation(len(runs)):
                start = now()
                runs[index]()
                row[index] = (now() - start) / 1e6
            if progress is not None:
                progress()
    finally:
        if was_enabled:
            gc.enable()
    return times


def ratios(times: Times, index: int, base: int = 0) -> Times:
    """Return a thing's time divided by the base's, round by round."""
    return times[:, index] / times[:, base]


def median_interval(values: Times, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the median and a confidence interval for it.

    The interval lies between two order statistics: the number of values below the true median is binomial with n and
    1/2, whatever the distribution of the values (Conover, Practical Nonparametric Statistics, section 3.2). With less
    than six values no such interval has 95 %, and the whole range is given.
    """
    ordered = np.sort(values)
    count = len(ordered)
    tail, below = (1 - confidence) / 2, 0.0
    rank = 0  # how many values may be left out at each end
    while rank < count // 2:
        below += math.comb(count, rank) / 2**count
        if below > tail:
            break
        rank += 1
    low = max(rank - 1, 0)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[count - 1 - low])
