"""What is installed here, what really works, and what to do about the rest."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from jr_onnx.records import Record
from jr_onnx.runtime.ops_library import TARGETS, LibraryStatus, status
from jr_onnx.runtime.providers import CUDA, Provider, check_providers

DISTRIBUTION = "jr-onnx"
_SHOWN = (DISTRIBUTION, "onnx", "onnx-graphsurgeon", "numpy", "onnxruntime", "onnxruntime-gpu", "torch")
_ALTERNATIVES = ("cpu", "gpu")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*[\"']([A-Za-z0-9._-]+)[\"']")
_GPU_DEVICE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Version(Record):
    """A distribution and its version, None where it is not installed."""

    SCHEMA: ClassVar[str] = "jr_onnx.doctor_version/1"
    name: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Extra(Record):
    """An extra of this package, and the distributions of it that are missing."""

    SCHEMA: ClassVar[str] = "jr_onnx.doctor_extra/1"
    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DoctorReport(Record):
    """Everything `jr-onnx doctor` shows.

    Attributes:
        python: Version of the interpreter.
        machine: Operating system and processor type.
        versions: The distributions that matter here.
        extras: The extras of this package.
        providers: The execution providers that ONNX Runtime lists.
        libraries: The op libraries.
        advice: What to do about what is missing or wrong, one line each.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.doctor/1"
    python: str
    machine: str
    versions: tuple[Version, ...]
    extras: tuple[Extra, ...]
    providers: tuple[Provider, ...]
    libraries: tuple[LibraryStatus, ...]
    advice: tuple[str, ...]


def examine() -> DoctorReport:
    """Look at this installation; runs a few tiny sessions and imports ONNX Runtime, never torch."""
    versions = tuple(Version(name, installed_version(name)) for name in _SHOWN)
    extras = find_extras()
    providers = check_providers()
    working = {item.name for item in providers if item.works}
    libraries = tuple(
        status(target, CUDA if target == "cuda" and CUDA in working else "CPUExecutionProvider") for target in TARGETS
    )
    return DoctorReport(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        versions=versions,
        extras=extras,
        providers=providers,
        libraries=libraries,
        advice=tuple(advise(versions, extras, providers, libraries, has_gpu=_GPU_DEVICE.exists())),
    )


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def find_extras() -> tuple[Extra, ...]:
    """Return the extras that this package declares, and what each one misses."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ()
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        name, extra = match.groups()
        missing.setdefault(extra, [])
        if installed_version(name) is None:
            missing[extra].append(name)
    return tuple(Extra(extra, tuple(names)) for extra, names in missing.items())


def advise(
    versions: tuple[Version, ...],
    extras: tuple[Extra, ...],
    providers: tuple[Provider, ...],
    libraries: tuple[LibraryStatus, ...],
    *,
    has_gpu: bool,
) -> Iterator[str]:
    """Say what to do, the most important first."""
    version = {item.name: item.version for item in versions}
    cpu, gpu = version.get("onnxruntime"), version.get("onnxruntime-gpu")
    works = {item.name: item.works for item in providers}
    if cpu and gpu:
        yield (
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other's files: run pip uninstall -y "
            "onnxruntime onnxruntime-gpu, then install one of 'jr-onnx[cpu]' and 'jr-onnx[gpu]'"
        )
    elif not cpu and not gpu and not providers:
        yield "ONNX Runtime is missing: pip install 'jr-onnx[cpu]', or 'jr-onnx[gpu]' for an NVIDIA GPU"
    if has_gpu and not gpu:
        yield "there is an NVIDIA GPU: pip uninstall -y onnxruntime, then pip install 'jr-onnx[gpu]' to use it"
    if has_gpu and works.get(CUDA) is False:
        yield f"{CUDA} does not work: pip install 'jr-onnx[gpu]' brings the CUDA and cuDNN libraries"
    for item in libraries:
        wanted = item.target == "cpu" or has_gpu
        if not item.loadable and wanted:
            verb = "does not work" if item.built else "is not built"
            yield f"the {item.target} op library {verb}: {item.reason}"
    for extra in extras:
        if extra.missing and extra.name not in _ALTERNATIVES:
            yield f"extra {extra.name} lacks {', '.join(extra.missing)}: pip install 'jr-onnx[{extra.name}]'"
