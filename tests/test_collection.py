"""The tests can be collected without torch: `pytest -m gpu` runs on machines that only serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import importlib.abc, sys
import pytest
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "scipy", "sklearn"):
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else real(name, package)
sys.meta_path.insert(0, Absent())
sys.exit(pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]))
"""


@pytest.mark.slow
def test_collected_without_torch() -> None:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout
    assert "tests/ops/test_cuda_library.py::test_a_captured_graph_draws_anew_at_every_replay" in done.stdout
