"""The trial finds rows that see each other, and is not misled by NaN, infinities, rounding or a single flip."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from jr_onnx.rows.joining import Joining, decide
from jr_onnx.rows.proof import RowProof
from jr_onnx.rows.trial import TrialInput, close, try_rows

INPUTS = [TrialInput("x", (-1, 16), np.dtype(np.float32))]
PROVED = RowProof(proved=True)
OPEN = RowProof(proved=False, node="'m' (ReduceMean)", reason="it works over the axis of the batch")


def quantised(x: np.ndarray) -> np.ndarray:
    """Quantise dynamically: the scale is taken from the whole batch, as DynamicQuantizeLinear does."""
    scale = np.abs(x).max() / 127
    return (np.round(x / scale) * scale).astype(np.float32)


def with_entry(number: float) -> Callable[[np.ndarray], np.ndarray]:
    def function(x: np.ndarray) -> np.ndarray:
        y = quantised(x)
        y[:, 5] = number
        return y

    return function


def runner(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda feed: {"y": function(feed["x"])}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x * 2, ""),
        (lambda x: np.where(x > 0, np.nan, x), ""),
        (lambda x: np.where(x > 0, -np.inf, x), ""),
        (lambda x: x - x.mean(axis=0), "depends on the other rows"),
        (lambda x: np.cumsum(x, axis=0), "depends on the other rows"),
        (lambda x: x[::-1], "depends on the other rows"),
        (quantised, "depends on the other rows"),
        (with_entry(np.inf), "depends on the other rows"),
        (with_entry(-np.inf), "depends on the other rows"),
        (with_entry(np.nan), "depends on the other rows"),
        (lambda x: np.where(x > x.mean(axis=0), np.inf, x), "depends on the other rows"),
        (lambda x: np.where(x == x.max(axis=0), np.nan, x), "depends on the other rows"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape).astype(np.float32), "depends on the other rows"),
        (lambda x: x.sum(axis=0, keepdims=True), "has not one row"),
        (lambda x: x.T, "has not one row"),
    ],
)  # fmt: skip
def test_what_a_trial_sees(function: Callable[[np.ndarray], np.ndarray], says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial = try_rows(runner(function), INPUTS)
    assert trial.ran
    assert says in trial.reason
    assert trial.contradicts == bool(says)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_number_that_is_not_finite_widens_no_tolerance(number: float, dtype: str) -> None:
    row = np.array([1.0, 2.0, number], dtype=dtype)
    moved = np.array([1.0, 2.5, number], dtype=dtype)
    other = np.array([1.0, 2.0, 3.0], dtype=dtype)
    assert close(row, row.copy())
    assert not close(moved, row)
    assert not close(row, other)
    assert not close(other, row)
    assert not close(-row, row)


def test_words_are_compared_as_words() -> None:
    words = [TrialInput("x", (-1,), np.dtype(object))]
    assert try_rows(lambda feed: {"y": feed["x"]}, words).reason == ""
    assert try_rows(lambda feed: {"y": feed["x"] + str(len(feed["x"]))}, words).contradicts


def test_a_model_that_cannot_be_run_is_no_contradiction() -> None:
    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise ValueError("no such size")

    trial = try_rows(run, INPUTS)
    assert not trial.contradicts
    assert "cannot be run" in trial.reason
    assert decide(PROVED, lambda: run, INPUTS).join
    assert "large" in try_rows(run, [TrialInput("x", (-1, 1 << 25), np.dtype(np.float32))]).reason


def test_rounding_and_a_single_flip_are_no_contradiction() -> None:
    runs = 0

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal runs
        runs += 1
        noise = np.float32(1e-6) * np.random.default_rng(runs).standard_normal(feed["x"].shape).astype(np.float32)
        flip = np.float32(0.1) if runs == 1 else np.float32(0)  # the first run only: a value lay on a jump
        return {"y": feed["x"] + noise + flip}

    assert not try_rows(run, INPUTS).contradicts


def same(x: np.ndarray) -> np.ndarray:
    return x


@pytest.mark.parametrize(
    ("proof", "function", "insist", "join", "says"),
    [
        (PROVED, same, "", True, "are proved independent, and a trial agrees"),
        (PROVED, quantised, "", False, "a trial contradicts the proof: output 'y' of a row depends"),
        (OPEN, same, "", False, "not proved independent (node 'm' (ReduceMean): it works over the axis of the batch)"),
        (OPEN, same, "--join-rows", True, "--join-rows was given, although not proved (node 'm' (ReduceMean)"),
        (OPEN, quantised, "--max-batch", True, "a trial says: output 'y' of a row depends on the other rows"),
        (PROVED, quantised, "--max-batch", True, "--max-batch was given, although"),
        (PROVED, same, "--max-batch", True, "are proved independent, and a trial agrees"),
    ],
)  # fmt: skip
def test_only_what_is_proved_and_not_contradicted_is_joined(
    proof: RowProof, function: Callable[[np.ndarray], np.ndarray], insist: str, join: bool, says: str
) -> None:
    decided = decide(proof, lambda: runner(function), INPUTS, insist=insist)
    assert decided.join == join
    assert says in decided.reason
    assert decided.insisted == (bool(insist) and "was given" in decided.reason)


def test_a_model_that_does_not_open_here_is_judged_by_the_proof() -> None:
    def closed() -> object:
        raise RuntimeError("no GPU")

    assert decide(PROVED, closed, INPUTS) == Joining(  # type: ignore[arg-type]
        join=True,
        reason="the rows of a batch are proved independent, a trial was not possible: the model cannot be opened here",
    )


def test_rows_of_strings_are_compared() -> None:
    words = np.array(["a", "b"], dtype=object)
    assert close(words[:1], np.array(["a"], dtype=object))
    assert not close(words[1:], words[:1])
