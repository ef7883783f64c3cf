"""What a check on a GPU says, as data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from jr_onnx.bench.records import BenchReport, Environment
from jr_onnx.errors import JrError
from jr_onnx.records import Record

Status = Literal["passed", "failed", "measured", "skipped"]
NO_GPU = "no GPU"


class SkipCheckError(JrError):
    """A check cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One check.

    Attributes:
        name: Which check.
        status: passed or failed where something must hold, measured where something is to be known, skipped where it
            could not be done. A skipped check has passed nothing.
        summary: What was found, in one line.
        figures: The numbers and words behind it.
        seconds: How long it took.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.gpu_finding/1"
    name: str
    status: Status
    summary: str
    figures: dict[str, str | float]
    seconds: float


@dataclass(frozen=True, slots=True)
class GpuReport(Record):
    """All checks of one run.

    Attributes:
        environment: Where and when.
        versions: Name and version of what matters on a GPU: driver, CUDA, torch.
        findings: The checks.
        benchmarks: The models' benchmarks.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.gpu_report/1"
    environment: Environment
    versions: dict[str, str]
    findings: tuple[Finding, ...]
    benchmarks: tuple[BenchReport, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a check returns; `run_check` adds the name and the time."""

    status: Status
    summary: str
    figures: dict[str, str | float]


def run_check(name: str, check: Callable[[], Verdict], *, has_gpu: bool) -> Finding:
    """Run one check; without a GPU it is skipped, and whatever it raises is a failure with a reason."""
    if not has_gpu:
        return Finding(name, "skipped", f"skipped: {NO_GPU}", {}, 0.0)
    start = time.perf_counter()
    try:
        verdict = check()
    except SkipCheckError as error:
        verdict = Verdict("skipped", f"skipped: {error}", {})
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others still run
        verdict = Verdict("failed", f"{type(error).__name__}: {' '.join(str(error).split())}", {})
    return Finding(name, verdict.status, verdict.summary, verdict.figures, time.perf_counter() - start)
