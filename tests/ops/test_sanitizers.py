"""The whole CPU library runs clean under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.ops.conftest import CPU_SOURCES, can_sanitize


@pytest.mark.parametrize("sanitizer", ["address,undefined", pytest.param("thread", marks=pytest.mark.slow)])
def test_clean(cxx: list[str], compile_cxx: Any, tmp_path: Path, sanitizer: str) -> None:
    flag = f"-fsanitize={sanitizer}"
    if not can_sanitize(cxx, tmp_path, flag):
        pytest.skip(f"the compiler has no working {flag} here")
    sources = ("sanitize_driver.cc", *CPU_SOURCES, "register.cc")
    driver = compile_cxx("driver", sources, flag, "-fno-sanitize-recover=all", "-O0", "-pthread")
    environment = {**os.environ, "JR_ONNX_PARALLEL_BYTES": "262144", "ASAN_OPTIONS": "detect_leaks=1"}
    for isa in ("baseline", "avx2", "avx512"):
        done = subprocess.run(
            [driver], capture_output=True, text=True, check=False, env={**environment, "JR_ONNX_ISA": isa}, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "clean\n"
        assert done.stderr == ""
