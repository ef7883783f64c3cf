"""The load test itself, shortly; `python -m tools.load_test` runs it for minutes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tools.load_test import Client, Known, Tally
from tools.serving.processes import ROOT


@pytest.mark.slow
def test_load_with_every_answer_compared() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.load_test", "--seconds", "15", "--clients", "6"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_load_test_notices_a_wrong_answer() -> None:
    tally = Tally()
    known = Known([np.zeros((1, 64), np.float32)], [np.ones((1, 64), np.float32)], bound=1e-6)
    client = Client(0, 0, known, tally, None)  # type: ignore[arg-type] # it is never started
    client._compare(np.ones((1, 64), np.float32), 0)
    assert not tally.wrong
    client._compare(np.full((1, 64), 1.1, np.float32), 0)
    client._compare(np.full((1, 64), np.nan, np.float32), 0)
    assert len(tally.wrong) == 2
