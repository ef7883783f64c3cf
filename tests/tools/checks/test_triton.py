"""The check against a real tritonserver: run where its environment is, its own logic tested everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.checks.protocol.oip_client import Case, check, read_cases
from tools.checks.triton.faults import FAULTS

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT_VARIABLE = "JR_ONNX_TRITON_ENVIRONMENT"


@pytest.fixture
def environment() -> Path:
    """The environment that `tools/checks/triton/run.py` made, or a skip."""
    folder = Path(os.environ.get(ENVIRONMENT_VARIABLE, ROOT / "out" / "triton-environment"))
    if not (folder / "complete").exists():
        pytest.skip(f"no tritonserver here: run python -m tools.checks.triton once, or set {ENVIRONMENT_VARIABLE}")
    return folder


@pytest.mark.slow
def test_a_real_tritonserver_takes_the_repository_and_rejects_what_is_broken(environment: Path) -> None:
    command = [sys.executable, "-m", "tools.checks.triton", "--environment", str(environment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("every check holds")


def test_there_are_at_least_nine_faults_each_with_a_message() -> None:
    assert len(FAULTS) >= 9
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.pattern.pattern


def test_cases_are_read_back(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    np.savez(tmp_path / "cases.npz", **{"net@2#a/in/x/y": array, "net@2#a/out/z": array + 1})
    (case,) = read_cases(str(tmp_path / "cases.npz"))
    assert (case.model, case.version) == ("net", "2")
    assert list(case.inputs) == ["x/y"]
    np.testing.assert_array_equal(case.outputs["z"], array + 1)


# The names and arguments below are tritonclient's.
class _Library:
    """The part of tritonclient that the client uses, answering with twice the input."""

    class InferInput:
        def __init__(self, *description: object) -> None:
            self.description = description

        def set_data_from_numpy(self, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
            self.array = array

    class InferRequestedOutput:
        def __init__(self, name: str) -> None:
            self.name = name


class _Client:
    def infer(self, *request: Any, **options: Any) -> _Client:
        inputs = request[1]
        assert options["model_version"] == "1"
        self.answer = inputs[0].array * 2
        return self

    def as_numpy(self, name: str) -> object:
        return {"y": self.answer}[name]


def test_a_wrong_answer_a_wrong_shape_and_a_wrong_type_are_seen() -> None:
    pytest.importorskip("tritonclient", reason="tritonclient is not installed")
    x = np.ones((1, 3), dtype=np.float32)
    cases = [
        Case("net@1#right", {"x": x}, {"y": 2 * x}),
        Case("net@1#wrong", {"x": x}, {"y": 3 * x}),
        Case("net@1#shape", {"x": x}, {"y": np.ones((1, 2), dtype=np.float32)}),
        Case("net@1#type", {"x": x}, {"y": np.full((1, 3), 2, dtype=np.float64)}),
        Case("net@1#nan", {"x": x}, {"y": np.full((1, 3), np.nan, dtype=np.float32)}),
    ]
    differences = check(_Library, _Client(), cases, threads=1)
    assert differences["net@1#right"] == 0.0
    assert differences["net@1#wrong"] == 1.0
    assert differences["net@1#shape"] == differences["net@1#type"] == float("inf")
    assert not differences["net@1#nan"] <= 1e9
