"""Check and measure, on a machine with an NVIDIA GPU and onnxruntime-gpu, what only a GPU can show.

    python -m tools.checks.gpu [-o gpu-report.json] [--write docs/gpu.md] [--quick] [--only PATTERN] [--limit-s N]

Needs no network and some minutes. Checked: whether a network computes on the GPU what it does on the CPU; where
ThresholdedRelu runs at opset 21 and 22; whether Conv and Relu are fused; the op library's kernel, in every type, eager,
bound to device memory and in a captured graph; which random kappas repeat when a graph is replayed; the kernel's
bandwidth against a copy and torch's ReLU; whether retrofits are verified there; the time of retrofits against their
originals. The results are saved after every check, so that an interrupted run loses one check at most. Without a GPU
every check is skipped, none passes, and the exit code is 3; it is 1 where a check fails and 0 where all is well.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from jr_onnx.bench import BenchReport, CaseResult, Row, environment
from jr_onnx.modelfile import atomic_write
from jr_onnx.records import dumps
from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS
from tools.bench.bars import replace_figures
from tools.checks.gpu import agreement, bandwidth, bias, kernel, models, placement, replay, served
from tools.checks.gpu.findings import Finding, GpuReport, SkipCheckError, Verdict, run_check
from tools.checks.gpu.sessions import has_gpu

CHECKS: dict[str, Callable[[], Verdict]] = {
    "ResNet-50 on the GPU and the CPU": agreement.with_the_cpu,
    "ThresholdedRelu at opset 21": lambda: placement.thresholded_relu(21),
    "ThresholdedRelu at opset 22": lambda: placement.thresholded_relu(22),
    "Conv and Relu fused": placement.conv_relu_fusion,
    "JumpRelu eager, every type": kernel.eager,
    "BiasJumpRelu eager, every type": bias.eager,
    "JumpRelu with bound memory": kernel.bound,
    "JumpRelu with unaligned memory": kernel.unaligned,
    "JumpRelu in a captured graph": replay.captured_kernel,
    "RandomUniform under replay": replay.replayed_random_uniform,
    "JumpRelu's own draw under replay": replay.replayed_own_draw,
    "JumpRelu's bandwidth": bandwidth.against_copy,
    "BiasJumpRelu's bandwidth": bias.against_copy,
}
SERVED = ("resnet50", "wide_resnet")
NOT_TIMED = (
    *(f"{network}, {dtype}, batch 1" for network in ("mobilenet_v2", "wide_resnet") for dtype in models.DTYPES),
    "resnet50, float16, batch 1",
    *(f"{network}, float32, batch 256" for network in models.NETWORKS),
    "resnet50, float16, batch 256",
)
"""What docs/gpu.md has no figure of as the code is now: what the last run had no time for."""
NOTHING_CHECKED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and write one file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-report.json"), help="where the results go")
    parser.add_argument("--write", type=Path, help="replace the figures in this Markdown file")
    parser.add_argument("--quick", action="store_true", help="leave the models out")
    parser.add_argument("--only", type=re.compile, default="", help="run only checks whose name matches this pattern")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="start no further check after this time")
    options = parser.parse_args(arguments)

    def save(report: GpuReport) -> None:
        atomic_write(options.output, [(dumps(report) + "\n").encode()])

    report = examine(quick=options.quick, only=options.only, limit_s=options.limit_s, save=save)
    text = render(report)
    print(text)
    measured = any(finding.status != "skipped" for finding in report.findings)
    if options.write and measured:
        options.write.write_text(replace_figures(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")
    if not measured:
        print("nothing was checked: there is no usable GPU here", file=sys.stderr)
        return NOTHING_CHECKED
    return 1 if any(finding.status == "failed" for finding in report.findings) else 0


def examine(
    *,
    quick: bool = False,
    only: re.Pattern[str] | str = "",
    limit_s: float = float("inf"),
    save: Callable[[GpuReport], None] = lambda _: None,
) -> GpuReport:
    """Run all checks.

    Args:
        quick: Whether the models are left out.
        only: A pattern that names the checks to run.
        limit_s: No check starts later than this many seconds after the first.
        save: Takes the report after every check.
    """
    start, load, gpu = time.perf_counter(), environment.load(), has_gpu()
    findings: list[Finding] = []
    benchmarks: list[BenchReport] = []
    here, found = environment.describe(load), versions()
    for name, check in all_checks(benchmarks, quick=quick).items():
        if not re.search(only, name):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        late = time.perf_counter() - start > limit_s
        findings.append(run_check(name, _out_of_time if late else check, has_gpu=gpu))
        save(GpuReport(here, found, tuple(findings), tuple(benchmarks)))
    report = GpuReport(environment.describe(load), found, tuple(findings), tuple(benchmarks))
    save(report)
    return report


def all_checks(benchmarks: list[BenchReport], *, quick: bool) -> dict[str, Callable[[], Verdict]]:
    """Return the checks in their order: what was not timed yet, the kernel, times, and whole networks.

    Args:
        benchmarks: Takes what is measured.
        quick: Whether the models are left out.
    """
    checks = dict(CHECKS)
    if not quick:
        # The most important first: a run that is out of time leaves out the last ones.
        for batch, dtype, network in product((32, 1, 256), models.DTYPES, models.NETWORKS):
            checks[f"{network}, {dtype}, batch {batch}"] = partial(_measure, network, dtype, batch, benchmarks)
        for network in models.NETWORKS:
            checks[f"{network} verified"] = partial(agreement.verified, network)
        for network in SERVED:
            checks[f"{network}, served"] = partial(served.replayed, network)
    first = {name: checks[name] for name in NOT_TIMED if name in checks}
    return first | checks


def _out_of_time() -> Verdict:
    raise SkipCheckError("out of time")


def _measure(network: str, dtype: models.Dtype, batch: int, benchmarks: list[BenchReport]) -> Verdict:
    with_lowerings = (dtype, batch) == ("float32", 32)
    lowerings = EXPLICIT_LOWERINGS if with_lowerings else ("custom",)
    found = models.measure(network, dtype=dtype, batches=(batch,), lowerings=lowerings)
    benchmarks.append(found)
    (case,) = found.cases
    words = [f"baseline {case.base} {case.row(case.base).median_ms:.2f} ms"]
    figures: dict[str, str | float] = {"baseline": case.base}
    best = best_session(case)
    if best is not None:
        words.append(f"{best.variant} {best.ratio:.3f} of it")
        figures["ratio"] = best.ratio
    reasons: dict[str, list[str]] = {}
    for name, reason in case.missing.items():
        reasons.setdefault(_core(reason), []).append(name)
    words += [f"not measured: {' and '.join(names)} ({reason})" for reason, names in reasons.items()]
    return Verdict("measured", "; ".join(words), figures)


def _core(reason: str) -> str:
    """Return what an error of ONNX Runtime says, without its frame and its source lines."""
    return reason.rpartition("Status Message: ")[2].partition(": /onnxruntime_src")[0]


def best_session(case: CaseResult) -> Row | None:
    """Return the fastest of this package's sessions, whatever options of the provider it has; None without one."""
    return min((row for row in case.rows if row.session == "optimised"), key=lambda row: row.ratio, default=None)


def versions() -> dict[str, str]:
    """Return the versions that matter on a GPU."""
    import onnxruntime

    found: dict[str, str] = {"onnxruntime": str(onnxruntime.__version__), "build": str(onnxruntime.get_device())}
    name = environment.gpu_name()
    if name is not None:
        found["gpu and driver"] = name
    try:
        import torch
    except ImportError:
        return found
    found["torch"] = str(torch.__version__)
    cuda: Any = torch.version.cuda
    if cuda is not None:
        found["CUDA of torch"] = str(cuda)
    return found


def render(report: GpuReport) -> str:
    """Return the results as Markdown."""
    listing = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    lines = [
        f"Run {report.environment.date} on {report.environment.gpu or 'no GPU'}, {report.environment.cpu}; {listing}.",
        "",
        "| check | result | found |",
        "|---|---|---|",
    ]
    lines += [f"| {finding.name} | {finding.status} | {finding.summary} |" for finding in report.findings]
    if report.benchmarks:
        lines += [
            "",
            "Time divided by that of the original with the options of the provider that make it fastest, data kept on",
            "the GPU. session: the fastest of `jr_onnx.InferenceSession`, and its options. defaults: the session's",
            "time divided by the original's, both with the provider's default options.",
            "",
        ]
        names = ("where", "thresholded", "custom")
        lines += [f"| model | batch | original | ms | {' | '.join(names)} | session | defaults |", 9 * "|---" + "|"]
        lines += [row for benchmark in report.benchmarks for row in _rows(benchmark, names)]
    return "\n".join(lines)


def _rows(benchmark: BenchReport, lowerings: Sequence[str]) -> list[str]:
    rows = []
    for case in benchmark.cases:
        ratios = {row.variant: row.ratio for row in case.rows}
        cells = [f"{ratios[name]:.3f}" if name in ratios else "-" for name in lowerings]
        best = best_session(case)
        cells.append("-" if best is None else f"{best.ratio:.3f} ({_options(best.variant)})")
        own = ratios.get("optimised")
        cells.append("-" if own is None else f"{own / ratios['original']:.3f}")
        base = f"{_options(case.base)} | {case.row(case.base).median_ms:.2f}"
        rows.append(f"| {benchmark.model.removesuffix('.onnx')} | {case.batch} | {base} | {' | '.join(cells)} |")
    return rows


def _options(variant: str) -> str:
    return variant.partition(", ")[2] or "default"


if __name__ == "__main__":
    sys.exit(main())
