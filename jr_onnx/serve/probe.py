"""Measure on loading whether joining requests is faster; whether it is correct is proved before.

A layer that reads large weights reads them once for a batch; a convolution whose image fits into the cache is slower
when a batch of them does not. So batches are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.rows import TrialInput
from jr_onnx.serve.tensors import TensorSpec

_TRIAL_SECONDS: Final = 1.0  # of timing batches, in all
_TIMED_RUNS: Final = 3
_WORTH: Final = 0.95  # a larger batch must cost less than this part of the best so far, row by row
_FEWEST_BYTES: Final = 1 << 20


def batch_bytes(specs: Iterable[TensorSpec], rows: int) -> int:
    """Return how large the inputs of a joined run may be together: those of the batches that were timed, or a mebibyte.

    Open sizes are up to the client: joined, the largest requests would take all their memory once more, and nothing is
    known about whether that is faster.
    """
    return max(_FEWEST_BYTES, rows * sum(_input(spec).row_bytes for spec in specs))


def powers_of_two(most: int) -> tuple[int, ...]:
    """Return the powers of 2 up to a number, and that number."""
    return tuple(sorted({*(1 << power for power in range(most.bit_length())), most}))


def best_rows(
    run: Callable[[Mapping[str, Array]], dict[str, Array]],
    specs: Iterable[TensorSpec],
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the size of the batch that costs the least per row, among the powers of 2 up to `most`, and `most`.

    Sizes that would take too long to try are left out; the larger one is chosen only where it is clearly better. Where
    the model cannot be run on drawn inputs, nothing is known, and the largest is taken.
    """
    inputs = [_input(spec) for spec in specs]
    if any(item.is_too_large for item in inputs):
        return 1
    generator = np.random.default_rng(0)
    row = {item.name: item.draw(generator) for item in inputs}
    best, best_cost, last_cost = 1, float("inf"), 0.0
    left = _TRIAL_SECONDS
    for size in powers_of_two(most):
        if size * last_cost * _TIMED_RUNS > left:
            break
        feed = {name: np.repeat(array, size, axis=0) for name, array in row.items()}
        try:
            times = [_timed(run, feed, clock) for _ in range(_TIMED_RUNS)]
        except Exception:  # noqa: BLE001 - the model may fail on inputs that mean nothing to it
            return most if best_cost == float("inf") else best
        left -= sum(times)
        last_cost = min(times) / size
        if last_cost < _WORTH * best_cost:
            best, best_cost = size, last_cost
    return best


def _input(spec: TensorSpec) -> TrialInput:
    return TrialInput(spec.name, spec.dims or (), spec.dtype)


def _timed(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], feed: Mapping[str, Array], clock: Callable[[], float]
) -> float:
    started = clock()
    run(feed)
    return clock() - started
