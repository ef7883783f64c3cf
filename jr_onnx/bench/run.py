"""The benchmark: prepare the variants, open them all, time them in interleaved rounds, describe the circumstances."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jr_onnx.bench import clock, environment
from jr_onnx.bench.footprint import footprint
from jr_onnx.bench.profile import profile
from jr_onnx.bench.records import BenchReport, CaseResult, OpTime, Row
from jr_onnx.bench.running import runner
from jr_onnx.bench.variants import (
    ORIGINAL,
    PROVIDERS,
    SESSIONS,
    USUAL_OPTIONS,
    PreparedModels,
    Variant,
    prepare,
)
from jr_onnx.errors import InputError, JrError, one_line, require
from jr_onnx.rewriter.lowering import RequestedLowering, Target
from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS
from jr_onnx.runtime.providers import CUDA_OPTIONS, full_name, require_providers, usable_providers
from jr_onnx.verifier.evaluators.errors import CannotRunError
from jr_onnx.verifier.inputs import InputOptions, make_inputs

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        model: An original or a retrofit.
        kappa: The jump; None for a retrofit's own plan.
        batches: Batch sizes.
        threads: Numbers of threads within an operator.
        lowerings: Which lowerings.
        sessions: Which sessions: plain, optimised, standard (optimised without the op library).
        providers: cpu, cuda.
        rounds: How often every variant runs.
        shapes: Input name -> whole shape, where the batch size is not enough.
        seed: Seed of inputs and order.
        with_footprint: Whether opening time and memory are measured, in fresh processes.
        with_profile: Whether the time per operator type is measured.
        clock: wall; or cpu, the time that the calling thread computed, for one thread on the CPU.
        cuda_options: Which options of the CUDA provider the original and the optimised session are measured with.
        allow_fallback: Measure on the CPU in place of a provider that does not work here, rather than refuse.
    """

    model: Path
    kappa: float | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    lowerings: tuple[RequestedLowering, ...] = EXPLICIT_LOWERINGS
    sessions: tuple[str, ...] = ("plain", "optimised")
    providers: tuple[str, ...] = ("cpu",)
    rounds: int = 50
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    seed: int = 0
    with_footprint: bool = True
    with_profile: bool = False
    clock: clock.Clock = "wall"
    cuda_options: tuple[str, ...] = USUAL_OPTIONS
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for what, values in (("batch size", self.batches), ("number of threads", self.threads)):
            if not values or min(values) < 1:
                raise InputError(f"the {what} is {values}, expected numbers of at least 1")
        for what, names, known in (
            ("session", self.sessions, SESSIONS),
            ("provider", self.providers, tuple(PROVIDERS)),
            ("lowering", self.lowerings, EXPLICIT_LOWERINGS),
            ("CUDA option", self.cuda_options, tuple(CUDA_OPTIONS)),
        ):
            unknown = [name for name in names if name not in known]
            if unknown or not names:
                raise InputError(f"the {what} is {', '.join(unknown) or 'missing'}, expected {', '.join(known)}")
        if "default" not in self.cuda_options:
            raise InputError(f"the CUDA options are {', '.join(self.cuda_options)}, expected default among them")
        if self.clock not in clock.CLOCKS:
            raise InputError(f"the clock is {self.clock!r}, expected {', '.join(clock.CLOCKS)}")
        if self.clock == "cpu" and (self.threads != (1,) or self.providers != ("cpu",)):
            raise InputError(
                "the cpu clock sees the calling thread only",
                hint="Use it with one thread on the CPU, or the wall clock",
            )
        if self.rounds < 1:
            raise InputError(f"a benchmark of {self.rounds} rounds was asked for, expected at least 1")


def benchmark(request: BenchRequest, progress: Progress | None = None) -> BenchReport:
    """Measure a model and its retrofits.

    Raises:
        InputError: The request cannot be met: no kappa, no inputs that fit, a provider that is not there.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: The file is not a usable model.
    """
    require("onnxruntime", "cpu")
    report = progress or (lambda *_: None)
    providers, warnings = _providers(request)
    load_before = environment.load()
    with tempfile.TemporaryDirectory(prefix="jr-onnx-bench-") as name:
        folder = Path(name)
        target: Target = "cuda" if "cuda" in providers else "cpu"
        report("rewriting the model", 0, 1)
        prepared = prepare(request.model, request.kappa, request.lowerings, request.sessions, folder, target)
        cases = tuple(
            _case(request, prepared, batch, threads, provider, folder, report)
            for provider, threads, batch in product(providers, request.threads, request.batches)
        )
    return BenchReport(
        request.model.name, prepared.sha256, request.kappa, prepared.sites, cases, environment.describe(load_before),
        warnings,
    )  # fmt: skip


def _providers(request: BenchRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the providers to measure on, and what was left out of those that were asked for.

    Raises:
        InputError: One does not work here, and falling back is not allowed.
    """
    names = tuple(full_name(name) for name in request.providers)
    if not request.allow_fallback:
        require_providers(names)
        return request.providers, ()
    warnings: list[str] = []
    kept = usable_providers(names, warnings.append)
    return tuple(name for name in PROVIDERS if full_name(name) in kept), tuple(warnings)


def _case(
    request: BenchRequest,
    prepared: PreparedModels,
    batch: int,
    threads: int,
    provider: str,
    folder: Path,
    report: Progress,
) -> CaseResult:
    label = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}, {provider}"
    report(f"{label}: opening sessions", 0, 1)
    missing = dict(prepared.missing)
    opened: list[tuple[Variant, Any]] = []
    variants = [found for item in prepared.variants for found in item.on(provider, request.cuda_options)]
    # The original with the provider's own defaults comes first: it finds the inputs and the outputs' shapes.
    for variant in sorted(variants, key=lambda item: item.name != ORIGINAL):
        try:
            opened.append((variant, variant.open(provider, threads)))
        except Exception as error:
            if variant.name == ORIGINAL:
                raise InputError(f"the original does not open on {provider}: {one_line(error)}") from error
            missing[variant.name] = one_line(error)
    feed = _feed(request, prepared, batch, opened[0][1])
    outputs = opened[0][1].run(None, feed) if provider == "cuda" else None
    runs = []
    for variant, session in list(opened):
        try:
            runs.append(_tried(runner(session, feed, provider, outputs)))
        except Exception as error:  # a graph that cannot be captured, memory that is not there
            if variant.name == ORIGINAL:
                raise InputError(f"the original does not run on {provider}: {one_line(error)}") from error
            missing[variant.name] = one_line(error)
            opened.remove((variant, session))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        report(f"{label}: measuring", done, request.rounds)

    times = clock.interleave(runs, request.rounds, seed=request.seed, progress=tick, clock=request.clock)
    variants = [variant for variant, _ in opened]
    base = _fastest_original(variants, times)
    rows = tuple(_row(variant, times, index, base) for index, variant in enumerate(variants))
    del opened, runs
    if request.with_footprint:
        rows = tuple(_with_footprints(rows, variants, provider, threads, feed, folder, label, report))
    profiles: dict[str, tuple[OpTime, ...]] = {}
    if request.with_profile:
        report(f"{label}: profiling", 0, 1)
        profiles = {variant.name: profile(variant, provider, threads, feed, folder) for variant in variants}
    return CaseResult(
        batch, threads, provider, request.rounds, rows, missing, profiles, request.clock, variants[base].name
    )


def _with_footprints(
    rows: tuple[Row, ...], variants: list[Variant], provider: str, threads: int, feed: dict[str, Any], folder: Path,
    label: str, report: Progress,
) -> Iterator[Row]:  # fmt: skip
    import dataclasses

    for index, (row, variant) in enumerate(zip(rows, variants, strict=True)):
        report(f"{label}: opening time and memory", index, len(rows))
        found = footprint(variant, provider, threads, feed, folder)
        yield dataclasses.replace(row, open_ms=found.open_ms, memory_bytes=found.memory_bytes)


def _tried(run: Callable[[], object]) -> Callable[[], object]:
    run()
    return run


def _fastest_original(variants: list[Variant], times: clock.Times) -> int:
    """Return which original is the baseline: the one with the options that suit it best."""
    originals = [index for index, variant in enumerate(variants) if variant.kind == "onnxruntime"]
    return min(originals, key=lambda index: float(np.median(times[:, index])))


def _row(variant: Variant, times: clock.Times, index: int, base: int) -> Row:
    ratio, low, high = clock.median_interval(clock.ratios(times, index, base))
    own = times[:, index]
    return Row(
        variant.name, variant.kind, float(np.median(own)), float(np.percentile(own, 99)), ratio, low, high
    )  # fmt: skip


def _feed(request: BenchRequest, prepared: PreparedModels, batch: int, session: Any) -> dict[str, Any]:
    def try_out(sample: dict[str, Any]) -> None:
        try:
            session.run(None, sample)
        except Exception as error:
            raise CannotRunError(one_line(error)) from error

    input_options = InputOptions(shapes=dict(request.shapes), batch=batch, seed=request.seed)
    try:
        feed = make_inputs(prepared.original, 1, input_options, try_out).samples[0]
    except JrError as error:
        raise InputError(f"no input with batch size {batch} fits the model: {error.message}", hint=error.hint) from None
    sizes = {array.shape[0] for array in feed.values() if array.ndim}
    if batch != 1 and not request.shapes and batch not in sizes:
        raise InputError(
            f"the model's inputs take no batch of {batch}: their first axes are fixed at {_listed(sizes)}",
            hint="Leave --batch out, or export the model with a dynamic batch axis",
        )
    return feed


def _listed(sizes: set[int]) -> str:
    return ", ".join(str(size) for size in sorted(sizes)) or "nothing, because they are scalars"
