"""The CPU library builds for AArch64 (NEON) and runs under an emulator; this needs a cross compiler and qemu."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.conftest import CPU_SOURCES, HERE, OPS


@pytest.mark.slow
def test_the_driver_runs_clean_on_aarch64(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("no AArch64 cross compiler and emulator here (g++-aarch64-linux-gnu, qemu-user)")
    driver = tmp_path / "driver"
    files = [str(HERE / "sanitize_driver.cc"), *(str(OPS / name) for name in (*CPU_SOURCES, "register.cc"))]
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", f"-I{OPS}"]
    subprocess.run([compiler, *flags, *files, "-o", driver], check=True)
    done = subprocess.run([emulator, driver], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "clean\n"), done.stderr
