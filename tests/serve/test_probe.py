"""Rows that see each other are found before requests are joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from jr_onnx.serve.probe import best_rows, rows_are_independent
from jr_onnx.serve.tensors import TensorSpec

SPECS = [TensorSpec("x", "FP32", np.dtype(np.float32), (-1, 16))]


def quantised(x: np.ndarray) -> np.ndarray:
    """Quantise dynamically: the scale is taken from the whole batch, as DynamicQuantizeLinear does."""
    scale = np.abs(x).max() / 127
    return (np.round(x / scale) * scale).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x * 2, ""),
        (lambda x: x - x.mean(axis=0), "depends on the other rows"),
        (lambda x: np.cumsum(x, axis=0), "depends on the other rows"),
        (lambda x: x[::-1], "depends on the other rows"),
        (quantised, "depends on the other rows"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape).astype(np.float32), "depends on the other rows"),
        (lambda x: x.sum(axis=0, keepdims=True), "has not one row"),
        (lambda x: x.T, "has not one row"),
    ],
)  # fmt: skip
def test_what_may_be_joined(function: Callable[[np.ndarray], np.ndarray], says: str) -> None:
    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": function(feed["x"])}

    found = rows_are_independent(run, SPECS)
    assert says in found
    assert bool(found) == bool(says)


def test_a_model_that_cannot_be_tried_is_not_joined() -> None:
    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise ValueError("no such size")

    assert "cannot be run" in rows_are_independent(run, SPECS)


def test_rounding_and_a_single_flip_do_not_forbid_joining() -> None:
    runs = 0

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal runs
        runs += 1
        noise = np.float32(1e-6) * np.random.default_rng(runs).standard_normal(feed["x"].shape).astype(np.float32)
        flip = np.float32(0.1) if runs == 1 else np.float32(0)  # the first run only: a value lay on a jump
        return {"y": feed["x"] + noise + flip}

    assert rows_are_independent(run, SPECS) == ""


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
def test_batches_are_as_large_as_it_pays(cost_ms: Callable[[int], float], rows: int) -> None:
    now = 0.0

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal now
        now += cost_ms(len(feed["x"])) / 1e3
        return {"y": feed["x"]}

    assert best_rows(run, SPECS, 24, clock=lambda: now) == rows
