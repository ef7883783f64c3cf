"""The script that a machine with a GPU runs: without one it says so, leaves nothing running, and passes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jr_onnx.records import loads
from tools.checks.gpu import sessions
from tools.checks.gpu.findings import GpuReport

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "checks" / "gpu" / "all.sh"


def test_without_a_gpu(tmp_path: Path) -> None:
    if sessions.has_gpu():
        pytest.skip("there is a GPU here, so its absence cannot be tried")
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(SCRIPT), "30"], capture_output=True, text=True, env=environment, timeout=180, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no GPU, so the rest is left out" in done.stdout
    report = loads(GpuReport, (tmp_path / "out" / "gpu-timings.json").read_text(encoding="utf-8"))
    assert {finding.status for finding in report.findings} == {"skipped"}
    assert (tmp_path / "out" / "machine.txt").stat().st_size > 0
