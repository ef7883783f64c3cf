"""Measure the CPU kernel of JumpRelu: bandwidth and cost per node against memcpy and ONNX Runtime's own operators.

    python -m tools.bench.op                 bandwidth on one thread, sizes from 4 KiB to 16 MiB
    python -m tools.bench.op --threads 2     where handing a pass to two threads begins to pay
    python -m tools.bench.op -o FILE         the same as data

A model is a chain of one operator in place, optimisation off. The time of one node is that of a long chain less that
of a chain of one, divided by the difference in nodes, so that the cost of a run cancels and the data is as warm as it
is behind a convolution. All subjects take turns in every round; the figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from jr_onnx.records import Record, dumps
from jr_onnx.runtime import register
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE

KIB = 1024
SIZES = tuple(KIB * size for size in (4, 16, 64, 128, 256, 512, 1024, 3072, 16384))
CHAIN = 24
SECONDS_PER_SAMPLE = 0.002
SAMPLES = 3  # the best of them counts, so that being interrupted does not
SETTLE_SECONDS = 0.05
ALONE = "one thread"
PARALLEL = "ParallelFor"
Timer = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Figure(Record):
    """One subject at one size.

    Attributes:
        subject: What was measured.
        size_bytes: Size of the tensor.
        node_us: Median time of one node, in microseconds.
        low_us: The time that a tenth of the rounds stays below: what the node costs while nothing else runs.
        gb_per_s: Bytes read and written in that time, in 10^9 a second.
        ratio: Median over the rounds of this subject's time by the first subject's.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.bench_op_figure/1"
    subject: str
    size_bytes: int
    node_us: float
    low_us: float
    gb_per_s: float
    ratio: float


@dataclass(frozen=True, slots=True)
class OpBench(Record):
    """All figures and where they come from."""

    SCHEMA: ClassVar[str] = "jr_onnx.bench_op/1"
    processor: str
    onnxruntime: str
    threads: int
    rounds: int
    figures: tuple[Figure, ...]


def chain(op_type: str, length: int, size_bytes: int, threads: int) -> Callable[[], Any]:
    """Return a function that runs a chain of one operator once.

    Args:
        op_type: Relu, ThresholdedRelu or JumpRelu.
        length: Number of nodes.
        size_bytes: Size of the float32 tensor.
        threads: Threads within an operator.
    """
    attributes: dict[str, Any] = {"ThresholdedRelu": {"alpha": 0.06}, OP_TYPE: {"kappa": 0.06}}.get(op_type, {})
    domain = OP_DOMAIN if op_type == OP_TYPE else ""
    names = [f"t{index}" for index in range(length + 1)]
    nodes = [
        helper.make_node(op_type, [before], [after], name=after, domain=domain, **attributes)
        for before, after in itertools.pairwise(names)
    ]
    # A reduction at the end keeps the result small: the time is that of the chain and not of copying the output.
    nodes.append(helper.make_node("ReduceMax", [names[-1]], ["y"], keepdims=0))
    count = size_bytes // 4
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [count])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(OP_DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    register(options, "cpu")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(names[0], onnxruntime.OrtValue.ortvalue_from_numpy(values))
    binding.bind_output("y", "cpu")
    return lambda: session.run_with_iobinding(binding)


def node_timer(op_type: str, size_bytes: int, threads: int) -> Timer:
    """Return a function that measures the time of one node in seconds."""
    if threads > 1:
        return threaded_timer(chain(op_type, CHAIN, size_bytes, threads))
    long, short = (chain(op_type, length, size_bytes, threads) for length in (CHAIN, 1))
    return lambda: (seconds(long) - seconds(short)) / (CHAIN - 1)


def threaded_timer(work: Callable[[], Any]) -> Timer:
    """Return a function that measures a node of a chain on several threads, the run's own cost included.

    The threads of the session before go on spinning for a while after their last run; the sleep lets them stop.
    """

    def measure_node() -> float:
        time.sleep(SETTLE_SECONDS)
        return seconds(work) / CHAIN

    return measure_node


def memcpy_timer(size_bytes: int) -> Timer:
    """Return a function that measures a copy of as many bytes, in seconds."""
    source = np.ones(size_bytes, dtype=np.uint8)
    target = np.empty_like(source)
    return lambda: seconds(lambda: np.copyto(target, source))


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of one call: of as many calls as fill a sample, divided, in the best of three samples."""
    start = time.perf_counter()
    work()
    once = time.perf_counter() - start
    calls = max(1, int(SECONDS_PER_SAMPLE / max(once, 1e-7)))
    samples = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        samples.append((time.perf_counter() - start) / calls)
    return min(samples)


def measure(subjects: dict[str, Timer], size_bytes: int, rounds: int) -> list[Figure]:
    """Measure the subjects in turns.

    Args:
        subjects: Name and timer; the ratios refer to the first.
        size_bytes: Size of the tensor.
        rounds: How often each is measured; one more round warms up.
    """
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, timer in subjects.items():
            samples[name].append(timer())
    first = next(iter(samples.values()))[1:]
    figures = []
    for name, times in samples.items():
        median = statistics.median(times[1:])
        ratio = statistics.median(own / other for own, other in zip(times[1:], first, strict=True))
        low = float(np.quantile(times[1:], 0.1))
        figures.append(Figure(name, size_bytes, median * 1e6, low * 1e6, 2 * size_bytes / median / 1e9, ratio))
    return figures


def bandwidth_subjects(size_bytes: int) -> dict[str, Timer]:
    """Return JumpRelu, ONNX Runtime's Relu and ThresholdedRelu, and memcpy, on one thread."""
    subjects = {name: node_timer(name, size_bytes, 1) for name in ("Relu", OP_TYPE, "ThresholdedRelu")}
    return {**subjects, "memcpy": memcpy_timer(size_bytes)}


def threshold_subjects(size_bytes: int, threads: int) -> dict[str, Timer]:
    """Return JumpRelu always on the calling thread and always on ONNX Runtime's threads, and Relu."""
    subjects = {}
    for name, threshold in ((ALONE, str(1 << 62)), (PARALLEL, "0")):
        os.environ["JR_ONNX_PARALLEL_BYTES"] = threshold  # read when the session is created
        subjects[name] = node_timer(OP_TYPE, size_bytes, threads)
    del os.environ["JR_ONNX_PARALLEL_BYTES"]
    return {**subjects, "Relu": node_timer("Relu", size_bytes, threads)}


def processor() -> str:
    """Return the processor's name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show(bench: OpBench) -> Table:
    """Render the figures: a row a size, a column a subject."""
    title = f"{bench.processor}, ONNX Runtime {bench.onnxruntime}, {bench.threads} thread(s), {bench.rounds} rounds"
    table = Table(
        title=title,
        title_justify="left",
        caption="median (lowest tenth) time of a node, GB/s read and written, ratio to column 1",
    )
    table.add_column("size", justify="right")
    subjects = list(dict.fromkeys(figure.subject for figure in bench.figures))
    for subject in subjects:
        table.add_column(subject, justify="right")
    for size in dict.fromkeys(figure.size_bytes for figure in bench.figures):
        row = [figure for figure in bench.figures if figure.size_bytes == size]
        cells = [
            f"{figure.node_us:.1f} ({figure.low_us:.1f}) us {figure.gb_per_s:.0f} {figure.ratio:.2f}x" for figure in row
        ]
        table.add_row(f"{size // KIB} KiB", *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="1 measures bandwidth, more the threshold")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="bytes")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for size in options.sizes:
        subjects = bandwidth_subjects(size) if options.threads == 1 else threshold_subjects(size, options.threads)
        figures += measure(subjects, size, options.rounds)
    bench = OpBench(processor(), onnxruntime.__version__, options.threads, options.rounds, tuple(figures))
    Console().print(show(bench))
    if options.output is not None:
        options.output.write_text(dumps(bench) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
