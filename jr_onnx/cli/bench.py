"""`jr-onnx bench`: what a retrofit costs, measured against its original."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import check_outputs, fallback_option, model_argument, seed_option, shape_option
from jr_onnx.cli.output import counted, print_json_text, print_table, say, tell

if TYPE_CHECKING:
    from jr_onnx.bench import BenchReport, CaseResult

_OPS_SHOWN = 8


@click.command("bench")
@model_argument
@click.option("--kappa", type=float, help="The jump. Needed for an original; a retrofit keeps its plan without it.")
@click.option("--batch", default="1", show_default=True, metavar="N,...", help="Batch sizes.")
@click.option("--threads", default="1", show_default=True, metavar="N,...", help="Threads within an operator.")
@click.option(
    "--lowering", default="all", show_default=True, metavar="NAME,...", help="where, thresholded, custom, or all."
)
@click.option(
    "--session",
    default="plain,optimised",
    show_default=True,
    metavar="NAME,...",
    help="plain: the lowerings as ONNX Runtime runs them; optimised: jr_onnx.InferenceSession; standard: the same "
    "without the op library.",
)
@click.option("--providers", default="cpu", show_default=True, metavar="NAME,...", help="cpu, cuda.")
@click.option(
    "--cuda-options",
    default="default,fuse_conv_bias,prefer_nhwc,both",
    show_default=True,
    metavar="NAME,...",
    help="Options of the CUDA provider that the original and the optimised session are measured with; also tf32_off, "
    "heuristic, graph, graph_fused, graph_both (captured graphs: alone, with fuse_conv_bias, with both).",
)
@fallback_option
@click.option("--rounds", type=int, default=50, show_default=True, help="How often every variant runs.")
@shape_option
@seed_option
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="wall: what a user waits; cpu: what the thread computed, for one thread on a machine that others use too.",
)
@click.option("--footprint/--no-footprint", default=True, help="Measure opening time and memory in fresh processes.")
@click.option("--profile", is_flag=True, help="Show where the time goes, by operator type.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the result as JSON; - is stdout.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw the ratios (.png, .svg).")
def command(model: Path, json_path: Path | None, plot_path: Path | None, **given: Any) -> None:
    """Measure MODEL, an original or a retrofit, in all its forms, in one interleaved run.

    Every form runs once in every round, in random order. A ratio is the median, over the rounds, of a form's time
    divided by the original's in the same round, with its 95 % confidence interval. On CUDA the original is the fastest
    of those with the given options.
    """
    from jr_onnx.bench import Request, bench
    from jr_onnx.cli.named_values import parse_shapes
    from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS

    check_outputs(json_path if str(json_path) != "-" else None, plot=plot_path)
    lowerings: Any = EXPLICIT_LOWERINGS if given["lowering"] == "all" else _words(given["lowering"])
    request = Request(
        model, given["kappa"], _numbers(given["batch"], "--batch"), _numbers(given["threads"], "--threads"), lowerings,
        _words(given["session"]), _words(given["providers"]), given["rounds"],
        tuple(parse_shapes(given["shape"]).items()), given["seed"], given["footprint"], given["profile"],
        given["clock"], _words(given["cuda_options"]), given["allow_fallback"],
    )  # fmt: skip
    with _progress() as progress:
        report = bench(request, progress)
    for words in report.warnings:
        say(f"warning: {words}")
    _write(report, json_path, plot_path)


def _write(report: BenchReport, json_path: Path | None, plot_path: Path | None) -> None:
    from jr_onnx.bench.plot import plot
    from jr_onnx.modelfile import atomic_write
    from jr_onnx.records import dumps

    if json_path is not None and str(json_path) == "-":
        print_json_text(dumps(report))
    else:
        _show(report)
        if json_path is not None:
            atomic_write(json_path, [(dumps(report) + "\n").encode()])
            say(f"result -> {json_path}")
    if plot_path is not None:
        plot(report, plot_path)
        say(f"plot -> {plot_path}")


def _show(report: BenchReport) -> None:
    where = report.environment
    tell(
        f"{report.model}: {counted(report.sites, 'site')}, {where.cpu}, ONNX Runtime {where.onnxruntime}, {where.date}"
    )
    for case in report.cases:
        click.echo()
        _show_case(case)
    # Two cores and a load of one leave this process a core of its own.
    if where.load_before > max(1.0, where.cores - 1):
        say(
            f"warning: the load was {where.load_before} on {where.cores} cores before the measurement; others share "
            "the caches and the memory, so look at the ratios rather than at the times"
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
    title = f"batch {case.batch}, threads {case.threads}, {case.provider}, {case.rounds} rounds, {case.clock} clock"
    if case.base != "original":
        title += f"; ratios to the fastest original ({case.base})"
    columns = ("model", "session", "median ms", "p99 ms", "ratio", "95 % interval", "open ms", "memory MiB")
    print_table(columns, rows, title=title)
    for name, reason in case.missing.items():
        say(f"{name}: not measured: {reason}")
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of whole numbers, expected for instance 1,8", param_hint=option
        ) from None
