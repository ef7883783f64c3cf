"""The declared C ABI: its own assertions fail when a slot moves, and the real headers agree where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OPS = Path(__file__).resolve().parent.parent.parent / "ops"
PLACES = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/include", "/usr/local/include")


def check(cxx: list[str], folder: Path, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*cxx, "-std=c++17", "-fsyntax-only", *flags, str(folder / source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def headers() -> Path:
    wanted = os.environ.get("JR_ORT_INCLUDE", "")
    for place in (wanted, *PLACES):
        if place and (Path(place) / "onnxruntime_c_api.h").is_file():
            return Path(place)
    pytest.skip("no ONNX Runtime headers here (Debian's libonnxruntime-dev, or JR_ORT_INCLUDE)")


def test_the_real_headers_agree(cxx: list[str]) -> None:
    done = check(cxx, OPS, "abi_check.cc", "-DJR_ORT_HEADERS", f"-I{headers()}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("void* reserved_29[22];", "void* reserved_29[21];", "GetTensorMutableData"),
        ("void* reserved_275[139];", "void* reserved_275[140];", "GetTensorElementTypeAndShapeDataReference"),
        ("  void (*KernelDestroy)(void* kernel);\n", "", "OrtCustomOp has 26 words"),
    ],
)
def test_a_moved_slot_does_not_compile(cxx: list[str], tmp_path: Path, old: str, new: str, named: str) -> None:
    text = (OPS / "ort_abi.h").read_text()
    assert text.count(old) == 1
    (tmp_path / "ort_abi.h").write_text(text.replace(old, new))
    done = check(cxx, tmp_path, "ort_abi.h", "-x", "c++")
    assert done.returncode != 0
    assert named in done.stderr


def test_the_comparison_notices_another_abi(cxx: list[str], tmp_path: Path) -> None:
    """With two slots exchanged in the copy, its own assertions pass or fail, but the headers' comparison fails."""
    folder = headers()
    for name in ("ort_abi.h", "abi_check.cc"):
        shutil.copy(OPS / name, tmp_path / name)
    text = (tmp_path / "ort_abi.h").read_text()
    text = text.replace("GetTensorTypeAndShape", "Swapped").replace("JR_SLOT(Swapped, 65);", "")
    text = text.replace("GetDimensionsCount)", "GetTensorTypeAndShape)").replace("Swapped)", "GetDimensionsCount)")
    text = text.replace("JR_SLOT(GetTensorTypeAndShape, 61);", "").replace("JR_SLOT(GetDimensionsCount, 61);", "")
    (tmp_path / "ort_abi.h").write_text(text)
    done = check(cxx, tmp_path, "abi_check.cc", "-DJR_ORT_HEADERS", f"-I{folder}")
    assert done.returncode != 0
    assert "is at another offset" in done.stderr
