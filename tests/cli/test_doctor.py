"""`jr-onnx doctor` says what is there, what really works and what to do, and never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.cli.app import run
from jr_onnx.records import dumps, loads
from jr_onnx.runtime import LibraryStatus, doctor
from jr_onnx.runtime.doctor import DoctorReport, Extra, Version, advise, examine, find_extras
from jr_onnx.runtime.providers import Provider, check_providers


def library(target: Any, *, loadable: bool = True, built: bool = True) -> LibraryStatus:
    reason = "" if loadable else "because"
    return LibraryStatus(target, built=built, loadable=loadable, reason=reason, path=f"/lib/{target}.so")


def advice_for(
    cpu: str | None = "1.31.1",
    gpu: str | None = None,
    extras: tuple[Extra, ...] = (),
    cuda: bool | None = None,
    libraries: tuple[LibraryStatus, ...] = (),
    has_gpu: bool = False,
) -> list[str]:
    versions = (Version("onnxruntime", cpu), Version("onnxruntime-gpu", gpu))
    providers = [Provider("CPUExecutionProvider", works=True, reason="")] if cpu or gpu else []
    if cuda is not None:
        providers.append(Provider("CUDAExecutionProvider", works=cuda, reason="" if cuda else "no device"))
    return list(advise(versions, extras, tuple(providers), libraries, has_gpu=has_gpu))


def test_a_complete_installation_gets_no_advice() -> None:
    assert advice_for(libraries=(library("cpu"), library("cuda", loadable=False, built=False))) == []


def test_two_onnxruntimes_are_a_conflict() -> None:
    (line,) = advice_for(gpu="1.31.0")
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.0 overwrite each other's files" in line
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in line


def test_no_onnxruntime_at_all() -> None:
    (line,) = advice_for(cpu=None)
    assert line == "ONNX Runtime is missing: pip install 'jr-onnx[cpu]', or 'jr-onnx[gpu]' for an NVIDIA GPU"


def test_a_gpu_that_is_not_used() -> None:
    (line,) = advice_for(has_gpu=True)
    assert line.startswith("there is an NVIDIA GPU")


def test_a_cuda_provider_that_does_not_work() -> None:
    assert advice_for(cpu=None, gpu="1.31.1", cuda=False, has_gpu=True) == [
        "CUDAExecutionProvider does not work: pip install 'jr-onnx[gpu]' brings the CUDA and cuDNN libraries"
    ]
    assert advice_for(cpu=None, gpu="1.31.1", cuda=False) == []  # no GPU: nothing to repair
    assert advice_for(cpu=None, gpu="1.31.1", cuda=True, has_gpu=True) == []


def test_libraries_and_extras_that_are_missing() -> None:
    lines = advice_for(
        libraries=(library("cpu", loadable=False), library("cuda", loadable=False, built=False)),
        extras=(Extra("gpu", ("onnxruntime-gpu",)), Extra("report", ("matplotlib",)), Extra("dev", ())),
    )
    assert lines == [
        "the cpu op library does not work: because",
        "extra report lacks matplotlib: pip install 'jr-onnx[report]'",
    ]
    (line,) = advice_for(
        cpu=None, gpu="1.31.1", has_gpu=True, cuda=True, libraries=(library("cuda", loadable=False, built=False),)
    )
    assert line == "the cuda op library is not built: because"


def test_extras_come_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "onnx>=1.17",
        'onnxruntime-gpu[cuda,cudnn]>=1.21; extra == "gpu"',
        "matplotlib>=3.8 ; python_version >= '3.11' and extra == 'report'",
        "pyopenssl>=24; extra == 'report'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: requirements)
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1" if name == "matplotlib" else None)
    assert find_extras() == (Extra("gpu", ("onnxruntime-gpu",)), Extra("report", ("pyopenssl",)))


def test_every_declared_extra_is_found() -> None:
    assert [extra.name for extra in find_extras()] == metadata.metadata("jr-onnx").get_all("Provides-Extra")


def test_only_a_provider_that_ran_a_node_works() -> None:
    found = {provider.name: provider for provider in check_providers()}
    assert found["CPUExecutionProvider"].works
    azure = found.get("AzureExecutionProvider")
    if azure is not None:  # listed, and first in a session made on it, yet it runs no node of its own
        assert not azure.works
        assert "CPUExecutionProvider" in azure.reason


class FakeSession:
    """A session that claims `claimed` and writes a profile of nodes on `ran`."""

    def __init__(self, folder: Path, claimed: str, ran: str) -> None:
        self._path = folder / "profile.json"
        self._path.write_text(json.dumps([{"name": "load"}, {"args": {"provider": ran}}]))
        self._claimed = claimed

    def get_providers(self) -> list[str]:
        return [self._claimed]

    def run(self, outputs: Any, feeds: Any) -> None: ...

    def end_profiling(self) -> str:
        return str(self._path)


@pytest.mark.parametrize(
    ("claimed", "ran", "works", "reason"),
    [
        ("CUDAExecutionProvider", "CUDAExecutionProvider", True, ""),
        ("CPUExecutionProvider", "CPUExecutionProvider", False, "a session asked for it runs on CPUExecutionProvider"),
        ("CUDAExecutionProvider", "CPUExecutionProvider", False, "its session ran the node on CPUExecutionProvider"),
    ],
)
def test_a_silent_fallback_is_seen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    claimed: str,
    ran: str,
    works: bool,
    reason: str,
) -> None:
    import onnxruntime

    make: Callable[..., FakeSession] = lambda *_, **__: FakeSession(tmp_path, claimed, ran)  # noqa: E731 - one use
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "preload_dlls", lambda: sys.stdout.write("Failed to load libcudnn\n"), raising=False
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    assert check_providers() == (Provider("CUDAExecutionProvider", works, reason),)
    assert capsys.readouterr().out == ""


def test_a_provider_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("cuDNN\n is missing")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    assert {provider.reason for provider in check_providers()} == {"cuDNN is missing"}


def test_the_report_round_trips() -> None:
    report = examine()
    assert loads(DoctorReport, dumps(report)) == report
    versions = {item.name: item.version for item in report.versions}
    assert versions["onnxruntime"] == metadata.version("onnxruntime")
    assert versions["numpy"] == metadata.version("numpy")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert loads(DoctorReport, captured.out).python == sys.version.split()[0]
    assert captured.err == ""


def test_tables_and_advice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = DoctorReport(
        python="3.12.1",
        machine="Linux x86_64",
        versions=(Version("onnx", "1.20"), Version("torch", None)),
        extras=(Extra("cpu", ()), Extra("report", ("jinja2",))),
        providers=(Provider("CUDAExecutionProvider", works=False, reason="[ONNXRuntimeError] : no [device]"),),
        libraries=(library("cpu"), library("cuda", loadable=False, built=False)),
        advice=("install 'jr-onnx[report]'",),
    )
    monkeypatch.setattr(doctor, "examine", lambda: report)
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "3.12.1 (Linux x86_64)",
        "not installed",
        "missing: jinja2",
        "does not work: [ONNXRuntimeError] : no [device]",
        "not built: because",
        "install 'jr-onnx[report]'",
    ):
        assert expected in text


def test_all_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    empty = DoctorReport("3.12.1", "Linux x86_64", versions=(), extras=(), providers=(), libraries=(), advice=())
    monkeypatch.setattr(doctor, "examine", lambda: empty)
    assert run(["doctor"]) == 0
    assert "Everything is in place." in capsys.readouterr().out


def test_torch_is_never_imported() -> None:
    code = "import sys; from jr_onnx.runtime.doctor import examine; examine(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("ran_on", "state"),
    [
        ("CPUExecutionProvider", "loads and is right on the CPU; not run on a GPU: no CUDA provider works here"),
        ("CUDAExecutionProvider", "works"),
    ],
)
def test_a_cuda_library_works_only_where_it_ran_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran_on: str, state: str
) -> None:
    asked = []

    def status(target: Any, provider: str) -> LibraryStatus:
        asked.append((target, provider))
        return LibraryStatus(target, built=True, loadable=True, reason="", path=f"/lib/{target}.so", ran_on=provider)

    cuda = Provider("CUDAExecutionProvider", works=ran_on == "CUDAExecutionProvider", reason="")
    monkeypatch.setattr(doctor, "check_providers", lambda: (cuda,))
    monkeypatch.setattr(doctor, "status", status)
    assert run(["doctor"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert asked == [("cpu", "CPUExecutionProvider"), ("cuda", ran_on)]
    assert "cpu works" in lines
    assert f"cuda {state}" in lines
    assert "Op libraries in /lib" in lines
