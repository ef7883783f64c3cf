"""The same over gRPC, asked with tritonclient in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.serve.builders import TYPES
from tests.serve.support import GOOD, Rest
from tools.checks.serving.processes import ROOT, ServerProcess

pytest.importorskip("tritonclient", reason="tritonclient is not installed")

STATUS = {
    "unknown model": "NOT_FOUND",
    "unknown version": "NOT_FOUND",
    "too large": "RESOURCE_EXHAUSTED",
}


@pytest.fixture(scope="module")
def report(server: ServerProcess) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.serve.grpc_cases", server.grpc],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + server.log
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_bad_request_gets_its_status(report: dict[str, Any]) -> None:
    assert len(report["bad"]) >= 20
    wrong = {
        name: answer
        for name, answer in report["bad"].items()
        if answer[0] != STATUS.get(name, "INVALID_ARGUMENT") or not answer[1]
    }
    assert not wrong


def test_the_server_lives_and_answers_as_over_rest(report: dict[str, Any], rest: Rest) -> None:
    assert (report["ready"], report["live"]) == (True, True)
    expected = rest.infer("fixed", GOOD).output().ravel()
    np.testing.assert_array_equal(np.array(report["binary"], np.float32), expected)
    np.testing.assert_array_equal(np.array(report["typed"], np.float32), expected)


def test_every_type_comes_back_as_it_was(report: dict[str, Any]) -> None:
    for name, (_, array) in TYPES.items():
        assert report["types"][f"out_{name}"] == array.tolist()


def test_the_hidden_kappa_input_is_not_in_the_metadata(report: dict[str, Any]) -> None:
    assert [item["name"] for item in report["metadata"]["inputs"]] == ["x"]


def test_models_are_unloaded_and_loaded(report: dict[str, Any]) -> None:
    assert report["unload"][0] == "OK"
    assert report["unloaded"][0] == "NOT_FOUND"
    assert report["load"][0] == "OK"
    assert report["loaded"] is True
    assert report["load nothing"][0] == "NOT_FOUND"
