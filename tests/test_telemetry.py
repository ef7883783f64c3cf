"""ONNX Runtime neither writes its device id nor collects usage data in a process of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "ORT_DISABLE_TELEMETRY"
# Variables by which ONNX Runtime recognises a test or a build machine, where it stays silent of itself.
OTHER_REASONS = (
    VARIABLE,
    "ORT_RUNNING_UNIT_TESTS",
    "CI",
    "GITHUB_ACTIONS",
    "TF_BUILD",
    "JENKINS_URL",
    "XDG_CACHE_HOME",
)

USES = {
    "session": "import jr_onnx; jr_onnx.InferenceSession",
    "doctor": "from jr_onnx.cli import main; main(['doctor', '--json'])",
    "tools": "import tools.bench.op",
    "child": "import jr_onnx, subprocess as s, sys; s.run([sys.executable, '-c', 'import onnxruntime'], check=True)",
}


def _run(code: str, home: Path, **more: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in OTHER_REASONS}
    environment = {**kept, "HOME": str(home), **more}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("use", USES)
def test_nothing_is_written_under_a_fresh_home(tmp_path: Path, use: str) -> None:
    pytest.importorskip("onnxruntime")
    _run(USES[use], tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_choice_of_ones_own_stays(tmp_path: Path) -> None:
    code = f"import os, jr_onnx; print(os.environ['{VARIABLE}'])"
    assert _run(code, tmp_path).strip() == "1"
    assert _run(code, tmp_path, **{VARIABLE: "0"}).strip() == "0"
