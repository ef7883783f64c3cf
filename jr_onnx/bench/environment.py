"""The circumstances of a measurement."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from pathlib import Path

from jr_onnx._version import __version__
from jr_onnx.bench.records import Environment
from jr_onnx.runtime.host import cpu_features, cpu_model
from jr_onnx.runtime.ops_library import status

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def load() -> float:
    """Return how many processes wanted to run in the last minute, as Linux sees it."""
    return os.getloadavg()[0]


def describe(load_before: float) -> Environment:
    """Describe this machine and moment, at the end of a measurement."""
    import onnxruntime

    return Environment(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        cpu=cpu_model(),
        features=cpu_features(),
        cores=len(os.sched_getaffinity(0)),
        governor=_governor(),
        load_before=round(load_before, 2),
        load_after=round(load(), 2),
        onnxruntime=str(onnxruntime.__version__),
        python=platform.python_version(),
        version=__version__,
        op_library=status("cpu").loadable,
        gpu=gpu_name(),
    )


def gpu_name() -> str | None:
    """Return the name and driver of the first NVIDIA GPU, None without."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - found on PATH
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def _governor() -> str:
    try:
        return _GOVERNOR.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
