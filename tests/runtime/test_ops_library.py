"""Finding, registering and proving the op library, and the words when it is missing or broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from jr_onnx.errors import InputError, OpLibraryError
from jr_onnx.records import dumps, loads
from jr_onnx.runtime import LibraryStatus, library_path, ops_library, register, status


@pytest.fixture
def built() -> Path:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler on this machine")
    return library_path("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the one with the libraries."""
    monkeypatch.setattr(ops_library, "_FOLDER", tmp_path)
    return tmp_path


def test_the_library_is_built_and_works(built: Path) -> None:
    assert built.name == "libjr_onnx_cpu.so"
    found = status("cpu")
    assert found == LibraryStatus(
        "cpu", built=True, loadable=True, reason="", path=str(built), ran_on="CPUExecutionProvider"
    )
    assert loads(LibraryStatus, dumps(found)) == found


def test_registering_returns_the_path(built: Path) -> None:
    assert register(onnxruntime.SessionOptions(), "cpu") == built


def test_a_missing_library_says_what_to_do(folder: Path) -> None:
    for target, needed in (("cpu", "a C++17 compiler"), ("cuda", "nvcc")):
        with pytest.raises(OpLibraryError) as caught:
            library_path(target)  # type: ignore[arg-type] # a loop over both
        assert f"libjr_onnx_{target}.so is not built" in caught.value.message
        assert needed in caught.value.hint
        assert "pip install" in caught.value.hint
        with pytest.raises(OpLibraryError):
            register(onnxruntime.SessionOptions(), target)
    found = status("cpu")
    assert (found.built, found.loadable) == (False, False)
    assert "install a C++17 compiler" in found.reason


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cpu": 3}', '{"cpu": {}}', '{"cpu": {"reason": ""}}'])
def test_a_damaged_report_is_no_report(folder: Path, text: str) -> None:
    (folder / "build.json").write_text(text)
    assert "install a C++17 compiler" in status("cpu").reason


def test_the_reason_of_the_build_is_passed_on(folder: Path) -> None:
    (folder / "build.json").write_text(json.dumps({"cpu": {"reason": "g++ failed: error: no space left"}}))
    with pytest.raises(OpLibraryError, match="no space left"):
        library_path("cpu")
    assert status("cpu").reason == "g++ failed: error: no space left"


def test_a_broken_library_is_built_but_not_loadable(folder: Path) -> None:
    (folder / "libjr_onnx_cpu.so").write_bytes(b"\x7fELF not really")
    found = status("cpu")
    assert (found.built, found.loadable) == (True, False)
    assert "cannot load" in found.reason
    assert "\n" not in found.reason
    with pytest.raises(OpLibraryError, match="Rebuild it"):
        register(onnxruntime.SessionOptions(), "cpu")


def test_a_library_without_the_operator_is_not_loadable(folder: Path, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    source = tmp_path / "empty.cc"
    source.write_text('extern "C" void* RegisterCustomOps(void*, void*) { return nullptr; }\n')
    library = folder / "libjr_onnx_cpu.so"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    found = status("cpu")
    assert (found.built, found.loadable) == (True, False)
    assert "a session with jr_onnx::JumpRelu fails" in found.reason


def test_a_library_that_computes_something_else_is_not_loadable(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_library, "jump_relu", lambda z, _: z)
    found = status("cpu")
    assert (found.built, found.loadable) == (True, False)
    assert "computes" in found.reason


def test_an_unknown_target_is_refused() -> None:
    calls: tuple[Any, ...] = (library_path, status)
    for call in calls:
        with pytest.raises(InputError, match="the op library target is 'tpu', expected one of cpu, cuda"):
            call("tpu")


def test_importing_the_runtime_imports_neither_onnxruntime_nor_torch() -> None:
    code = "import sys, jr_onnx.runtime; print(sorted({'onnxruntime', 'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
