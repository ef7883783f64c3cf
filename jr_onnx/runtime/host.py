"""Which host this is, as far as ONNX Runtime's kernels and layouts depend on it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jr_onnx.records import Record

_CPUINFO = Path("/proc/cpuinfo")
# What ONNX Runtime's kernels look for; the size of its channel blocks depends on avx512f.
_FEATURES = (
    "sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host(Record):
    """A host.

    Attributes:
        machine: Processor architecture, for instance x86_64.
        features: The instruction sets that ONNX Runtime chooses kernels and layouts by.
        onnxruntime: Its version.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.host/1"
    machine: str
    features: tuple[str, ...]
    onnxruntime: str


def this_host() -> Host:
    """Return what this host is."""
    import onnxruntime

    return Host(platform.machine(), cpu_features(), str(onnxruntime.__version__))


def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets of the processor, as far as they matter here; empty where Linux does not tell."""
    words = set(_field("flags").split()) | set(_field("Features").split())
    return tuple(name for name in _FEATURES if name in words)


def cpu_model() -> str:
    """Return the name of the processor."""
    return _field("model name") or platform.processor() or platform.machine()


def _field(name: str) -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
