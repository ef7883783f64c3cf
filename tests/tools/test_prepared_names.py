"""Scripts prepared for a machine with a GPU find the tools under the names and options that they know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=180, cwd=ROOT)


def test_the_checks_take_their_old_option(tmp_path: Path) -> None:
    done = _run("-m", "tools.check_gpu", "--json", str(tmp_path / "report.json"), "--only", "no such check")
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "report.json").is_file()


def test_training_takes_its_old_option(tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    done = _run("-m", "tools.train", "digits_cnn", "--epochs", "1", "--limit", "64", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert out.is_file()


@pytest.mark.parametrize(
    "code", ["from tools.gpu.bandwidth import kernel_seconds", "from tools.gpu import kernel; kernel.eager"]
)
def test_kernels_are_imported_by_their_old_names(code: str) -> None:
    done = _run("-c", code)
    assert done.returncode == 0, done.stderr
