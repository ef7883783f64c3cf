"""`jr-onnx bench`: what a retrofit costs, measured against its original."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import (
    check_outputs,
    fallback_option,
    kappa_option,
    model_argument,
    output_option,
    seed_option,
    shape_option,
)
from jr_onnx.cli.output import counted, json_option, print_json, print_lines, print_message, print_table, write_result
from jr_onnx.cli.types import INTEGER, PATH, Numbers, Words

if TYPE_CHECKING:
    from jr_onnx.bench import BenchReport, CaseResult
    from jr_onnx.rewriter.lowering import RequestedLowering

_OPS_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx bench`."""

    model: Path
    kappa: float | None
    batch: tuple[int, ...]
    threads: tuple[int, ...]
    lowering: tuple[str, ...]
    session: tuple[str, ...]
    provider: tuple[str, ...]
    cuda_options: tuple[str, ...]
    allow_fallback: bool
    rounds: int
    shape: Mapping[str, tuple[int, ...]]
    seed: int
    clock: Literal["wall", "cpu"]
    footprint: bool
    profile: bool
    output: Path | None
    plot: Path | None
    as_json: bool


@cli_command(
    "bench",
    Arguments,
    examples=(
        "jr-onnx bench model.onnx --kappa 0.06 --rounds 5",
        "jr-onnx bench model.jr.onnx --rounds 5 --batch 1,8 --no-footprint -o bench.json",
    ),
    new_flags={"--json": "--output"},
)
@model_argument
@kappa_option
@option("--batch", type=Numbers(), default="1", help="Size used for dynamic batch axes; several are compared.")
@option("--threads", type=Numbers(), default="1", help="Threads of a run; several are compared.")
@option("--lowering", type=Words(), default="all", help="where, thresholded, custom, or all.")
@option(
    "--session",
    type=Words(),
    default="plain,optimised",
    help="plain: the lowerings as ONNX Runtime runs them; optimised: jr_onnx.InferenceSession; standard: the same "
    "without the op library.",
)
@option("--provider", type=Words(), default="cpu", help="Where ONNX Runtime computes: cpu, cuda, or both.")
@renamed_option("--providers", "--provider", type=Words())
@option(
    "--cuda-options",
    type=Words(),
    default="default,fuse_conv_bias,prefer_nhwc,both",
    help="Options of the CUDA provider to measure the original and the optimised session with; also tf32_off, "
    "heuristic, graph, graph_fused, graph_both (captured graphs: alone, with fuse_conv_bias, with both).",
)
@fallback_option
@option("--rounds", type=INTEGER, default=50, help="Runs of every variant.")
@shape_option
@seed_option
@option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    help="wall: the time a user waits; cpu: the processor time of one thread, on a machine that is not idle.",
)
@option("--footprint/--no-footprint", default=True, help="Measure opening time and memory in fresh processes.")
@option("--profile", is_flag=True, help="Show where the time goes, by operator type.")
@output_option("Also write the result as JSON.")
@option("--plot", type=PATH, help="Draw the ratios (.png, .svg, .pdf).")
@json_option
def command(given: Arguments) -> None:
    """Measure what MODEL, an original or a retrofit, costs in all its variants, in one interleaved run.

    Every variant runs once in every round, in random order. A ratio is the median, over the rounds, of a variant's
    time divided by the original's in the same round, with its 95% confidence interval. On CUDA the original is the
    fastest of those with the given options. A retrofit keeps its own kappa unless --kappa is given.
    """
    from jr_onnx.bench import BenchRequest, benchmark
    from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS

    check_outputs(given.output, plot=given.plot)
    lowerings = EXPLICIT_LOWERINGS if "all" in given.lowering else cast("tuple[RequestedLowering, ...]", given.lowering)
    request = BenchRequest(
        given.model, given.kappa, given.batch, given.threads, lowerings, given.session, given.provider, given.rounds,
        tuple(given.shape.items()), given.seed, given.footprint, given.profile, given.clock,
        given.cuda_options, given.allow_fallback,
    )  # fmt: skip
    with _progress() as progress:
        report = benchmark(request, progress)
    for words in report.warnings:
        print_message(f"warning: {words}")
    _write(report, given)


def _write(report: BenchReport, given: Arguments) -> None:
    from jr_onnx.bench.plot import plot

    if given.as_json:
        print_json(report)
    else:
        _show(report)
    write_result(report, given.output)
    if given.plot is not None:
        plot(report, given.plot)
        print_message(f"plot -> {given.plot}")


def _show(report: BenchReport) -> None:
    where = report.environment
    print_lines(
        f"{report.model}: {counted(report.sites, 'site')}, {where.cpu}, ONNX Runtime {where.onnxruntime}, {where.date}"
    )
    for case in report.cases:
        click.echo()
        _show_case(case)
    # With two cores and a load of one, this process still has a core to itself.
    if where.load_before > max(1.0, where.cores - 1):
        print_message(
            f"warning: the load was {where.load_before} on {where.cores} cores before the measurement; other processes "
            "share the caches and the memory, so trust the ratios more than the times"
        )


def _show_case(case: CaseResult) -> None:
    rows = [
        (
            row.variant, row.session, f"{row.median_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.ratio:.3f}",
            f"{row.ratio_low:.3f} to {row.ratio_high:.3f}",
            "" if row.open_ms is None else f"{row.open_ms:.0f}",
            "" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:.0f}",
        )
        for row in case.rows
    ]  # fmt: skip
    title = f"{case.name}, {counted(case.rounds, 'round')}, {case.clock} clock"
    if case.base != "original":
        title += f"; ratios to the fastest original ({case.base})"
    columns = ("model", "session", "median ms", "p99 ms", "ratio", "95% interval", "open ms", "memory MiB")
    print_table(columns, rows, title=title)
    for name, reason in case.missing.items():
        print_message(f"{name}: not measured: {reason}")
    if case.profile:
        _show_profile(case)


def _show_profile(case: CaseResult) -> None:
    total = {name: sum(item.ms for item in items) for name, items in case.profile.items()}
    largest: dict[str, float] = {}
    for items in case.profile.values():
        for item in items:
            largest[item.op_type] = max(largest.get(item.op_type, 0.0), item.ms)
    shown = sorted(largest, key=lambda name: -largest[name])[:_OPS_SHOWN]
    by_name = {name: {item.op_type: item for item in items} for name, items in case.profile.items()}
    rows = [
        (op, *(f"{found[op].ms:.2f} ({found[op].calls})" if op in found else "" for found in by_name.values()))
        for op in shown
    ]
    rows.append(("all", *(f"{total[name]:.2f}" for name in by_name)))
    print_table(("operator, ms (calls)", *by_name), rows)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being done on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
