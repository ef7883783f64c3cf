"""What a benchmark finds, as data; tables and plots only render it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jr_onnx.records import Record


@dataclass(frozen=True, slots=True)
class Environment(Record):
    """Where and when was measured.

    Attributes:
        date: UTC, ISO 8601.
        cpu: Name of the processor.
        features: Instruction sets that matter to ONNX Runtime.
        cores: Processors this process may use.
        governor: Frequency governor, "unknown" where Linux does not tell (virtual machines as a rule).
        load_before: Processes that wanted to run, mean of a minute, before the measurement.
        load_after: The same after it. Both should be near 0 to 1: others share the caches and the memory.
        onnxruntime: Its version.
        python: Version of Python.
        version: Version of this package.
        op_library: Whether the op library works.
        gpu: Name of the GPU, None without.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench_environment/1"
    date: str
    cpu: str
    features: tuple[str, ...]
    cores: int
    governor: str
    load_before: float
    load_after: float
    onnxruntime: str
    python: str
    version: str
    op_library: bool
    gpu: str | None = None


@dataclass(frozen=True, slots=True)
class Row(Record):
    """One variant in one case.

    Attributes:
        variant: original, or the lowering, or optimised.
        session: onnxruntime, plain, optimised or standard.
        median_ms: Median time of a run.
        p99_ms: 99th percentile.
        ratio: Median over the rounds of the time divided by the base's time in the same round; see `CaseResult`.
        ratio_low: Lower end of the 95 % confidence interval of that median.
        ratio_high: Upper end.
        open_ms: Time of the processor to open the session in a fresh process; None where it was not measured.
        memory_bytes: Peak memory of opening and one run in a fresh process, beyond the imports; None as above.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench_row/1"
    variant: str
    session: str
    median_ms: float
    p99_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    open_ms: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class OpTime(Record):
    """Where time goes: one operator type in one variant.

    Attributes:
        op_type: Type of operator.
        calls: Kernels of it in one run.
        ms: Their time in one run, median over the runs.
        output_bytes: Size of what they write in one run.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench_op/1"
    op_type: str
    calls: int
    ms: float
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CaseResult(Record):
    """All variants with one batch size, number of threads and provider.

    Attributes:
        batch: Batch size.
        threads: Threads within an operator.
        provider: cpu or cuda.
        rounds: How often every variant ran.
        rows: The variants that could be opened, the original first.
        missing: Variants that could not, and why.
        profile: Variant -> time per operator type, the longest first; empty unless asked for.
        clock: wall, or cpu: the time that the calling thread computed.
        base: The row that ratios refer to: the original, with those of the provider's options that make it fastest.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench_case/1"
    batch: int
    threads: int
    provider: str
    rounds: int
    rows: tuple[Row, ...]
    missing: dict[str, str]
    profile: dict[str, tuple[OpTime, ...]]
    clock: str = "wall"
    base: str = "original"

    @property
    def name(self) -> str:
        """What all variants have in common, such as "batch 1, 2 threads, cpu"."""
        return f"batch {self.batch}, {self.threads} thread{'' if self.threads == 1 else 's'}, {self.provider}"

    def row(self, variant: str) -> Row:
        """Return a variant's row.

        Raises:
            KeyError: It was not measured.
        """
        for row in self.rows:
            if row.variant == variant:
                return row
        raise KeyError(variant)


@dataclass(frozen=True, slots=True)
class BenchReport(Record):
    """A whole benchmark.

    Attributes:
        model: File name of the model.
        model_sha256: Digest of the file.
        kappa: The jump, None where the model is a retrofit with a plan of its own.
        sites: How many sites were retrofitted.
        cases: One for every combination of batch size, threads and provider.
        environment: Where and when.
        warnings: What was measured in another way than requested.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench/1"
    model: str
    model_sha256: str
    kappa: float | None
    sites: int
    cases: tuple[CaseResult, ...]
    environment: Environment
    warnings: tuple[str, ...] = ()
