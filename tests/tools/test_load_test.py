"""The load test itself, shortly; `python -m tools.load_test` runs it for minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.serving.processes import ROOT


@pytest.mark.slow
def test_load_with_every_answer_compared() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.load_test", "--seconds", "15", "--clients", "6"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
