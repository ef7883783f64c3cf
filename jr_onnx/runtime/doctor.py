"""What is installed here, what really works, and what to do about the rest.

A provider counts as working only if a session created on it ran a node on it: onnxruntime-gpu lists CUDA on machines
without a GPU and falls back to the CPU in silence.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jr_onnx.errors import MissingExtraError, one_line, require
from jr_onnx.records import Record
from jr_onnx.runtime.ops_library import TARGETS, LibraryStatus, status

DISTRIBUTION = "jr-onnx"
_CUDA = "CUDAExecutionProvider"
_SHOWN = (DISTRIBUTION, "onnx", "onnx-graphsurgeon", "numpy", "onnxruntime", "onnxruntime-gpu", "torch")
_ALTERNATIVES = ("cpu", "gpu")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*[\"']([A-Za-z0-9._-]+)[\"']")
_GPU_DEVICE = Path("/proc/driver/nvidia/version")
_QUIET = 4  # fatal only: what goes wrong is in the report
_WARNING = 2  # ONNX Runtime's own default


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
class Provider(Record):
    """An execution provider that ONNX Runtime lists, and whether nodes really run on it."""

    SCHEMA: ClassVar[str] = "jr_onnx.doctor_provider/1"
    name: str
    works: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Report(Record):
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


def examine() -> Report:
    """Look at this installation; runs a few tiny sessions and imports ONNX Runtime, never torch."""
    versions = tuple(Version(name, installed_version(name)) for name in _SHOWN)
    extras = find_extras()
    providers = check_providers()
    working = {item.name for item in providers if item.works}
    libraries = tuple(
        status(target, _CUDA if target == "cuda" and _CUDA in working else "CPUExecutionProvider") for target in TARGETS
    )
    return Report(
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


def check_providers(wanted: Collection[str] | None = None) -> tuple[Provider, ...]:
    """Run a node on every execution provider that ONNX Runtime lists; empty without ONNX Runtime.

    Args:
        wanted: Look at these alone.
    """
    try:
        onnxruntime = require("onnxruntime", "cpu")
    except MissingExtraError:
        return ()
    names = [str(name) for name in onnxruntime.get_available_providers()]
    with _quiet(onnxruntime):
        if _CUDA in names and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds the CUDA libraries that came as Python packages
        return tuple(_check_provider(onnxruntime, name) for name in names if wanted is None or name in wanted)


def _check_provider(onnxruntime: Any, name: str) -> Provider:
    """Create a session on one provider, run it, and look where its node ran."""
    with tempfile.TemporaryDirectory(prefix="jr-onnx-doctor-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(_relu_model(), options, providers=[name], enable_fallback=0)
            created_on = session.get_providers()[0]
            session.run(None, {"x": np.array([-1.0, 1.0], dtype=np.float32)})
            ran_on = session.get_providers()[0]
            nodes_on = _profiled_providers(Path(session.end_profiling()))
        except Exception as error:  # noqa: BLE001 - whatever a provider throws is the finding
            return Provider(name, works=False, reason=one_line(error))
    if created_on != name or ran_on != name:
        return Provider(name, works=False, reason=f"a session asked for it runs on {ran_on}")
    if name not in nodes_on:
        return Provider(name, works=False, reason=f"its session ran the node on {', '.join(sorted(nodes_on))}")
    return Provider(name, works=True, reason="")


def _profiled_providers(path: Path) -> set[str]:
    events = json.loads(path.read_text(encoding="utf-8"))
    return {event["args"]["provider"] for event in events if "provider" in event.get("args", {})}


def _relu_model() -> bytes:
    """Return a model of one Relu(x) with x of shape (2,), float32."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Keep ONNX Runtime's complaints off the terminal: the report tells them."""
    onnxruntime.set_default_logger_severity(_QUIET)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


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
    if has_gpu and works.get(_CUDA) is False:
        yield f"{_CUDA} does not work: pip install 'jr-onnx[gpu]' brings the CUDA and cuDNN libraries"
    for item in libraries:
        wanted = item.target == "cpu" or has_gpu
        if not item.loadable and wanted:
            verb = "does not work" if item.built else "is not built"
            yield f"the {item.target} op library {verb}: {item.reason}"
    for extra in extras:
        if extra.missing and extra.name not in _ALTERNATIVES:
            yield f"extra {extra.name} lacks {', '.join(extra.missing)}: pip install 'jr-onnx[{extra.name}]'"
