"""Measure the five models of docs/speed.md on this machine, against their bars, and print the table.

    python -m tools.bench.bars [--rounds N] [--only NAME,...] [-o FILE] [--write docs/speed.md]

Every model is measured in one interleaved run of all its forms, on one thread (see `jr-onnx bench`). The exit code is 1
where a ratio is above its bar even at the lower end of its confidence interval.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from jr_onnx.bench import BenchReport, BenchRequest, CaseResult, Row, benchmark
from jr_onnx.bench.models import build
from jr_onnx.records import Record, dumps

KAPPA = 0.06
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Bar:
    """A model, its batch size, and the ratios to reach."""

    name: str
    title: str
    model: str
    batch: int
    reach: float
    hope: float


BARS = (
    Bar("resnet50", "ResNet-50 224, batch 1", "resnet50", 1, 1.02, 1.00),
    Bar("mobilenet_v2", "MobileNetV2 224, batch 1", "mobilenet_v2", 1, 1.06, 1.02),
    Bar("mobilenet_v2_batch8", "MobileNetV2 224, batch 8", "mobilenet_v2", 8, 1.10, 1.03),
    Bar("wide_resnet", "WideResNet 4 blocks, width 4, 32x32, batch 1", "wide_resnet", 1, 1.04, 1.01),
    Bar("mlp", "MLP 784-2048-2048-10, batch 64", "mlp", 64, 1.01, 1.00),
)
_COLUMNS = ("where", "thresholded", "custom", "standard", "optimised")


@dataclass(frozen=True, slots=True)
class BarsReport(Record):
    """All bars as measured.

    Attributes:
        names: Names of the bars.
        reports: Their benchmarks, in this order.
        copy_gb_s: What one thread reads and writes when it copies 256 MB, in GB a second.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bars/1"
    names: tuple[str, ...]
    reports: tuple[BenchReport, ...]
    copy_gb_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the batch-1 models; batch 8 gets half")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(bar.name for bar in BARS))
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--write", type=Path, help="replace the figures in this Markdown file")
    parser.add_argument("--no-footprint", action="store_true", help="leave opening time and memory out")
    options = parser.parse_args(arguments)
    wanted = {name for name in options.only.split(",") if name} or {bar.name for bar in BARS}
    unknown = wanted - {bar.name for bar in BARS}
    if unknown:
        parser.error(f"there is no bar {sorted(unknown)[0]!r}")
    bars = [bar for bar in BARS if bar.name in wanted]
    reports = [measure(bar, options.rounds, with_footprint=not options.no_footprint) for bar in bars]
    report = BarsReport(tuple(bar.name for bar in bars), tuple(reports), copy_bandwidth())
    text = render(report)
    print(text)
    if options.output:
        options.output.write_text(dumps(report) + "\n", encoding="utf-8")
    if options.write:
        options.write.write_text(replace_figures(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")
    missed = [bar.title for bar, one in zip(bars, reports, strict=True) if _optimised(one).ratio_low > bar.reach]
    for title in missed:
        print(f"{title}: the bar is missed", file=sys.stderr)
    return 1 if missed else 0


def measure(bar: Bar, rounds: int, *, with_footprint: bool = True) -> BenchReport:
    """Benchmark one bar's model."""
    print(f"{bar.title} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="jr-onnx-bars-") as folder:
        path = Path(folder) / f"{bar.model}.onnx"
        onnx.save(build(bar.model), str(path))
        request = BenchRequest(
            path, KAPPA, batches=(bar.batch,), rounds=max(rounds // (2 if bar.batch == 8 else 1), 1),
            sessions=("plain", "optimised", "standard"), with_profile=True, clock="cpu",
            with_footprint=with_footprint,
        )  # fmt: skip
        return benchmark(request)


def copy_bandwidth(megabytes: int = 256, repeats: int = 7) -> float:
    """Return what one thread reads and writes when it copies, in GB a second, the best of some tries."""
    source = np.ones(megabytes << 18, dtype=np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best / 1e9


def render(report: BarsReport) -> str:
    """Return the tables as Markdown."""
    bars = {bar.name: bar for bar in BARS}
    where = report.reports[0].environment
    lines = [
        f"Measured {where.date[:10]} on {where.cpu} ({where.cores} cores; {' '.join(where.features)}), ONNX Runtime "
        f"{where.onnxruntime}, one thread, kappa {KAPPA}. The mean load of the machine was "
        f"{min(_loads(report)):.1f} to {max(_loads(report)):.1f}, so times are what the thread computed, without its "
        "waiting for a core. Ratios are medians over pairs in interleaved rounds, "
        "with the 95 % interval of the last column in brackets.",
        "",
        "| model | ReLU ms | where | thresholded | custom | optimised, standard nodes | optimised | reach | hope |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in zip(report.names, report.reports, strict=True):
        case, bar = one.cases[0], bars[name]
        cells = [_ratio(case, column) for column in _COLUMNS]
        best = case.row("optimised")
        cells[-1] = f"**{best.ratio:.3f}** ({best.ratio_low:.3f} to {best.ratio_high:.3f})"
        start = f"| {bar.title} | {case.row('original').median_ms:.1f} | "
        lines.append(start + " | ".join(cells) + f" | {bar.reach:.2f} | {bar.hope:.2f} |")
    lines += ["", *_passes(report), "", *_footprints(report)]
    return "\n".join(lines)


def _passes(report: BarsReport) -> list[str]:
    """Say what the jumps move, and how fast."""
    bars = {bar.name: bar for bar in BARS}
    lines = [
        f"What the jumps cost by ONNX Runtime's own profile. A copy of 256 MB moves {report.copy_gb_s:.0f} GB/s here.",
        "",
        "| model | JumpRelu nodes | ms | part of the run | MB read and written | GB/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in zip(report.names, report.reports, strict=True):
        items = {item.op_type: item for item in one.cases[0].profile["optimised"]}
        total = sum(item.ms for item in items.values())
        jump = items.get("JumpRelu")
        if jump is None:
            continue
        moved = 2 * jump.output_bytes / 1e6
        rate = moved / jump.ms if jump.ms else 0.0
        part = f"{100 * jump.ms / total:.1f} %"
        lines.append(f"| {bars[name].title} | {jump.calls} | {jump.ms:.2f} | {part} | {moved:.1f} | {rate:.0f} |")
    return lines


def _footprints(report: BarsReport) -> list[str]:
    bars = {bar.name: bar for bar in BARS}
    lines = [
        "Opening a session, in a fresh process (time of the processor, the least of four), and the peak memory of "
        "opening and one run.",
        "",
        "| model | ReLU ms | plain ms | optimised ms | against plain | ReLU MiB | optimised MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in zip(report.names, report.reports, strict=True):
        case = one.cases[0]
        relu, plain, best = (case.row(row) for row in ("original", "thresholded", "optimised"))
        if relu.open_ms is None or plain.open_ms is None or best.open_ms is None:
            continue
        lines.append(
            f"| {bars[name].title} | {relu.open_ms:.0f} | {plain.open_ms:.0f} | {best.open_ms:.0f} | "
            f"{best.open_ms / plain.open_ms:.1f} | {(relu.memory_bytes or 0) / 2**20:.0f} | "
            f"{(best.memory_bytes or 0) / 2**20:.0f} |"
        )
    return lines


def replace_figures(text: str, figures: str) -> str:
    """Put figures between the two marks of a text.

    Raises:
        ValueError: The marks are not there.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the text has no place for figures, expected {BEGIN} and {END}")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n{figures}\n{END}{tail}"


def _ratio(case: CaseResult, variant: str) -> str:
    try:
        return f"{case.row(variant).ratio:.3f}"
    except KeyError:
        return "-"


def _optimised(report: BenchReport) -> Row:
    return report.cases[0].row("optimised")


def _loads(report: BarsReport) -> list[float]:
    return [
        value for one in report.reports for value in (one.environment.load_before, one.environment.load_after)
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
