"""Batches are as large as is worthwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from jr_onnx.serve.probe import batch_bytes, best_rows
from jr_onnx.serve.tensors import TensorSpec

SPECS = [TensorSpec("x", "FP32", np.dtype(np.float32), (-1, 16))]


@pytest.mark.parametrize(
    ("cost_ms", "rows"),
    [
        (lambda size: 10 + 0.1 * size, 24),  # weights read once: the largest
        (lambda size: 20.0 * size, 1),  # no gain: none
        (lambda size: 20.0 * size + size**2, 1),  # a loss: none
        (lambda size: 10 + size if size <= 4 else 10 * size, 4),  # a gain while it fits into the cache
        (lambda size: 400.0 * size**0, 1),  # too slow to try more
    ],
)
def test_batches_are_as_large_as_is_worthwhile(cost_ms: Callable[[int], float], rows: int) -> None:
    now = 0.0

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal now
        now += cost_ms(len(feed["x"])) / 1e3
        return {"y": feed["x"]}

    assert best_rows(run, SPECS, 24, clock=lambda: now) == rows


def test_a_model_that_fails_on_drawn_inputs_is_joined_as_far_as_allowed() -> None:
    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise ValueError("no such size")

    assert best_rows(run, SPECS, 24) == 24


def test_a_batch_that_fails_is_not_formed() -> None:
    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feed["x"]) > 2:
            raise MemoryError
        return {"y": feed["x"]}

    clock = iter(range(1000))
    assert best_rows(run, SPECS, 24, clock=lambda: 1e-3 * next(clock)) in (1, 2)


def test_joined_requests_take_as_much_as_the_batches_that_were_timed() -> None:
    images = TensorSpec("x", "FP32", np.dtype(np.float32), (-1, 3, -1, -1))
    indices = TensorSpec("i", "INT64", np.dtype(np.int64), (-1, 2))
    assert batch_bytes([images, indices], 16) == 16 * (3 * 224 * 224 * 4 + 2 * 8)
    assert batch_bytes(SPECS, 32) == 1 << 20, "small ones are joined whatever their sizes"
