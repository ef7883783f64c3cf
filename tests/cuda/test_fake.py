"""Building the fake CUDA libraries: missing headers make the tests skip, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda import fake as libraries


def test_without_headers_nothing_is_left_to_test_and_the_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / libraries.RUNTIME).write_bytes(b"an older build")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "nvcc" else f"/usr/bin/{tool}")
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    libraries.main(tmp_path)
    assert capsys.readouterr().err.startswith("the tests of the CUDA side skip: CUDA's headers are not here")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    libraries.main(tmp_path)
    assert capsys.readouterr().err == "the tests of the CUDA side skip: g++ is not on PATH\n"


def test_a_library_that_does_not_compile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(libraries, "cuda_headers", lambda: tmp_path)
    monkeypatch.setattr(libraries, "wanted_symbols", lambda _: {"libcuda.so.1": {"not a name"}})
    monkeypatch.setattr(libraries, "provider_library", lambda: tmp_path)
    with pytest.raises(SystemExit, match=r"cannot be built: libcuda\.so\.1 does not compile: .*error"):
        libraries.main(tmp_path)
