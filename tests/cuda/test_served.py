"""The check of the server's captured graphs runs, and finds graphs that answer with old inputs."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from onnx import helper

from jr_onnx.runtime.fixed import FixedBinding
from tools.checks.gpu.served import compare
from tools.checks.gpu.sessions import elementwise

RELU = [helper.make_node("Relu", ["x"], ["y"], name="site")]


def test_graphs_answer_as_runs_without_one(fake: ctypes.CDLL) -> None:
    verdict = compare(elementwise(RELU, shape=("N", 33)), (1, 4), rounds=2)
    assert (verdict.status, verdict.figures["wrong"]) == ("passed", 0)
    timed = {f"{options}, {rows} rows, ms" for options in ("default", "both", "graph", "graph_both") for rows in (1, 4)}
    assert timed < verdict.figures.keys()


def test_a_graph_that_answers_with_old_inputs_fails(fake: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    put, puts = FixedBinding.put, []

    def forgetful(binding: Any, feed: Any) -> None:
        puts.append(feed)
        if len(puts) <= 8:  # what the capture tries: two inputs for each of two sizes, in two sessions
            put(binding, feed)

    monkeypatch.setattr(FixedBinding, "put", forgetful)
    verdict = compare(elementwise(RELU, shape=("N", 33)), (1, 4), rounds=1)
    assert (verdict.status, verdict.figures["wrong"]) == ("failed", 8)
