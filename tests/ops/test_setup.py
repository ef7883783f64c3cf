"""`setup.py`: builds what it can, says in one line what it cannot, and names the wheel accordingly."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture
def setup_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`setup.py` imported without running setup(), with the CUDA library left out."""
    pytest.importorskip("setuptools", reason="setuptools is not installed here")
    spec = importlib.util.spec_from_file_location("jr_onnx_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("CXX", "NVCC", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JR_ONNX_BUILD_CUDA", "0")
    return module


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of what a source distribution is made of."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in SHIPPED:
        shutil.copy(ROOT / name, tree / name)
    ignore = shutil.ignore_patterns("__pycache__", "lib")
    shutil.copytree(ROOT / "ops", tree / "ops", ignore=ignore)
    shutil.copytree(ROOT / "jr_onnx", tree / "jr_onnx", ignore=ignore)
    return tree


def run_setup(tree: Path, *arguments: str, **environment: str) -> str:
    pytest.importorskip("setuptools", reason="setuptools is not installed here")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JR_ONNX_BUILD_CUDA": "0", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


def test_without_a_compiler_nothing_fails(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_module.build_libraries(tmp_path / "out") == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "libjr_onnx_cpu.so is not built: no C++ compiler was found; install g++ (or set CXX)" in lines[0]
    report = json.loads((tmp_path / "out" / "build.json").read_text())
    assert report["cpu"]["reason"].startswith("no C++ compiler was found")
    assert report["cuda"]["reason"].startswith("JR_ONNX_BUILD_CUDA=0")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "failed: exit code 3"),
        ("echo one >&2; echo 'x.cc:1: error: no' >&2; exit 1", "failed: x.cc:1: error: no"),
        ("echo one >&2; echo two >&2; exit 1", "failed: two"),
        (None, "cannot be run: No such file or directory"),
    ],
)
def test_a_failing_compiler_fails_nothing(
    setup_module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    reason: str,
) -> None:
    compiler = tmp_path / "compiler"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert setup_module.build_libraries(tmp_path) == []
    line = capsys.readouterr().err.splitlines()[0]
    assert line == f"jr-onnx: warning: libjr_onnx_cpu.so is not built: {compiler} {reason}"
    assert not list(tmp_path.glob("*.so"))


def test_an_up_to_date_library_is_kept_and_a_failed_one_removed(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(output: Path, folder: Path) -> str:
        output.write_text(f"{len(list(folder.parent.glob('*.so')))}")
        return "compiler 1"

    monkeypatch.setattr(setup_module, "BUILDERS", {"cpu": build})
    library = tmp_path / "libjr_onnx_cpu.so"
    assert setup_module.build_libraries(tmp_path) == ["cpu"]
    library.write_text("kept")
    assert setup_module.build_libraries(tmp_path) == ["cpu"]
    assert library.read_text() == "kept"
    monkeypatch.setenv("CXX", "another")  # part of what decides the contents
    assert setup_module.build_libraries(tmp_path) == ["cpu"]
    assert library.read_text() == "0"

    def fail(output: Path, folder: Path) -> str:
        raise setup_module.BuildError("no")

    monkeypatch.setattr(setup_module, "BUILDERS", {"cpu": fail})
    monkeypatch.setenv("CXX", "a third")
    assert setup_module.build_libraries(tmp_path) == []
    assert not library.exists()


def test_nvcc_is_looked_for_where_the_environment_says(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JR_ONNX_BUILD_CUDA", "1")
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho compute_80 compute_90\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert setup_module.find_nvcc() == str(nvcc)
    assert setup_module.architecture_flags(str(nvcc)) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]


def test_a_wheel_without_libraries_is_pure(source_tree: Path) -> None:
    message = run_setup(source_tree, "bdist_wheel", CXX="false")
    assert "libjr_onnx_cpu.so is not built" in message
    (wheel,) = (source_tree / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in contents(wheel) if name.endswith(".so")]


@pytest.mark.slow
def test_a_wheel_with_libraries_is_a_platform_wheel(source_tree: Path, cxx: list[str]) -> None:
    stale = source_tree / "jr_onnx" / "lib" / "libjr_onnx_cuda.so"
    stale.parent.mkdir()
    stale.write_text("from an earlier build")
    run_setup(source_tree, "bdist_wheel")
    (wheel,) = (source_tree / "dist").glob("*.whl")
    assert "-py3-none-linux_" in wheel.name
    names = [name for name in contents(wheel) if "/lib/" in name]
    assert sorted(names) == ["jr_onnx/lib/build.json", "jr_onnx/lib/libjr_onnx_cpu.so"]


def test_the_source_distribution_holds_the_sources_and_no_libraries(source_tree: Path) -> None:
    stale = source_tree / "jr_onnx" / "lib" / "libjr_onnx_cpu.so"
    stale.parent.mkdir()
    stale.write_text("from an earlier build")
    run_setup(source_tree, "sdist")
    (archive,) = (source_tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"ops/{path.name}" for path in (ROOT / "ops").iterdir()} <= names
    assert not [name for name in names if name.endswith(".so")]


def test_with_an_old_setuptools_the_libraries_can_be_built_alone(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[Path] = []

    def build(destination: Path) -> list[str]:
        built.append(destination)
        return ["cpu"]

    monkeypatch.setattr(setup_module, "build_libraries", build)
    assert setup_module.build_alone(["-q", "build_py", "--build-lib", str(tmp_path)]) == 0
    assert built == [tmp_path / "jr_onnx" / "lib"]
    with pytest.raises(SystemExit):
        setup_module.build_alone(["bdist_wheel"])
    assert "invalid choice: 'bdist_wheel'" in capsys.readouterr().err
    monkeypatch.setattr(setup_module, "build_libraries", lambda _: [])
    assert setup_module.build_alone(["build_py", "--build-lib", str(tmp_path)]) == 1
