"""Settle and measure, on a machine with an NVIDIA GPU and onnxruntime-gpu, what only a GPU can tell.

    python -m tools.check_gpu [--json gpu-report.json] [--write docs/gpu.md] [--quick]

Needs no network and a few minutes. Checked: where ThresholdedRelu runs at opset 21 and 22; whether Conv and Relu are
fused; the op library's kernel, in every type, eager, bound to device memory and in a captured graph; which random
kappas repeat when a graph is replayed; the kernel's bandwidth against a copy and torch's ReLU; the time of retrofits
against their originals. Without a GPU every check is skipped, none passes, and the exit code is 3; it is 1 where a
check fails and 0 where all is well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jr_onnx.bench import BenchReport, environment
from jr_onnx.records import dumps
from tools.bench_bars import replace_figures
from tools.gpu import bandwidth, kernel, models, placement, replay
from tools.gpu.findings import Finding, GpuReport, Verdict, run_check
from tools.gpu.sessions import has_gpu

CHECKS: dict[str, Callable[[], Verdict]] = {
    "ThresholdedRelu at opset 21": lambda: placement.thresholded_relu(21),
    "ThresholdedRelu at opset 22": lambda: placement.thresholded_relu(22),
    "Conv and Relu fused": placement.conv_relu_fusion,
    "JumpRelu eager, every type": kernel.eager,
    "JumpRelu with bound memory": kernel.bound,
    "JumpRelu with unaligned memory": kernel.unaligned,
    "JumpRelu in a captured graph": replay.captured_kernel,
    "RandomUniform under replay": replay.replayed_random_uniform,
    "JumpRelu's own draw under replay": replay.replayed_own_draw,
    "JumpRelu's bandwidth": bandwidth.against_copy,
}
NOTHING_CHECKED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all checks and write one file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu-report.json"), help="where the results go")
    parser.add_argument("--write", type=Path, help="replace the figures in this Markdown file")
    parser.add_argument("--quick", action="store_true", help="leave the models out")
    options = parser.parse_args(arguments)
    report = examine(quick=options.quick)
    options.json.write_text(dumps(report) + "\n", encoding="utf-8")
    text = render(report)
    print(text)
    measured = any(finding.status != "skipped" for finding in report.findings)
    if options.write and measured:
        options.write.write_text(replace_figures(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")
    if not measured:
        print("nothing was checked: there is no usable GPU here", file=sys.stderr)
        return NOTHING_CHECKED
    return 1 if any(finding.status == "failed" for finding in report.findings) else 0


def examine(*, quick: bool = False) -> GpuReport:
    """Make all checks."""
    load = environment.load()
    gpu = has_gpu()
    findings = []
    for name, check in CHECKS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        findings.append(run_check(name, check, has_gpu=gpu))
    benchmarks: list[BenchReport] = []
    if not quick:
        findings.extend(_measure(network, benchmarks, has_gpu=gpu) for network in models.NETWORKS)
    return GpuReport(environment.describe(load), versions(), tuple(findings), tuple(benchmarks))


def _measure(network: str, benchmarks: list[BenchReport], *, has_gpu: bool) -> Finding:
    def check() -> Verdict:
        print(f"{network} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        found = models.measure(network)
        benchmarks.append(found)
        worst = max(row.ratio for case in found.cases for row in case.rows)
        words = f"{len(found.cases)} batch sizes in {time.perf_counter() - start:.0f} s, largest ratio {worst:.3f}"
        return Verdict("measured", words, {"largest_ratio": worst})

    return run_check(f"{network} retrofitted", check, has_gpu=has_gpu)


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
        lines += ["", "Time of a retrofit divided by its original's, data kept on the GPU.", ""]
        lines += ["| model | batch | ReLU ms | where | thresholded | custom | session |", 7 * "|---" + "|"]
        lines += [row for benchmark in report.benchmarks for row in _rows(benchmark)]
    return "\n".join(lines)


def _rows(benchmark: BenchReport) -> list[str]:
    rows = []
    for case in benchmark.cases:
        ratios = {row.variant: f"{row.ratio:.3f}" for row in case.rows}
        cells = [ratios.get(name, "-") for name in ("where", "thresholded", "custom", "optimised")]
        relu = f"{case.row('original').median_ms:.2f}"
        rows.append(f"| {benchmark.model.removesuffix('.onnx')} | {case.batch} | {relu} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
