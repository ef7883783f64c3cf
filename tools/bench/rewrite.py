"""Measure `jr-onnx rewrite` on a ResNet-50, on 4 GB of external data and on 100,000 ReLUs; write the figures down.

    python -m tools.bench.rewrite [--runs 7] [--external-gb 4] [--output docs/rewrite-speed.md]

Every run is a fresh process, so that the time includes the start of Python and the memory is the peak of the process.
The model with external data is rewritten beside its source, where nothing is copied, and into another folder, where
the time of the copy alone is measured with `cp` and `sync` in the same round and subtracted.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
_MEGABYTE = 1_000_000
RELUS = 100_000
_COPY = 'cp --reflink=auto "$1" "$2" && sync "$2"'
# A process counts the memory of its parent before exec as its own, so that a small parent must start it.
_MEASURE = """
import os, sys, time
start = time.perf_counter()
null = os.open(os.devnull, os.O_WRONLY)
redirect = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=redirect)
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Measurement:
    """Seconds on the clock and on the CPU, and peak memory of a process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class ResNet:
    """A ResNet-50 with random weights, batch norms folded, as an exporter writes it: about 100 MB."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """Return the model."""
        x = self._conv("x", 3, 64, 7, 2)
        x = self._node("MaxPool", [self._node("Relu", [x])], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 64
        for stage, (blocks, width) in enumerate(_STAGES):
            for block in range(blocks):
                x = self._block(x, channels, width, stride=2 if stage and not block else 1)
                channels = 4 * width
        x = self._node("Flatten", [self._node("GlobalAveragePool", [x])])
        self._weight("fc.weight", (1000, channels))
        self._weight("fc.bias", (1000,))
        x = self._node("Gemm", [x, "fc.weight", "fc.bias"], transB=1)
        graph = helper.make_graph(
            self._nodes,
            "resnet50",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 1000])],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _block(self, x: str, channels: int, width: int, *, stride: int) -> str:
        y = self._node("Relu", [self._conv(x, channels, width, 1, 1)])
        y = self._node("Relu", [self._conv(y, width, width, 3, stride)])
        y = self._conv(y, width, 4 * width, 1, 1)
        if channels != 4 * width:
            x = self._conv(x, channels, 4 * width, 1, stride)
        return self._node("Relu", [self._node("Add", [y, x])])

    def _conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        name = f"conv{len(self._nodes)}"
        self._weight(f"{name}.weight", (outputs, inputs, kernel, kernel))
        self._weight(f"{name}.bias", (outputs,))
        pads = [kernel // 2] * 4
        return self._node("Conv", [x, f"{name}.weight", f"{name}.bias"], strides=[stride, stride], pads=pads)

    def _weight(self, name: str, shape: tuple[int, ...]) -> None:
        self._weights.append(numpy_helper.from_array(self._random.standard_normal(shape).astype(np.float32), name))

    def _node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"/{op_type.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"


def write_external(folder: Path, gigabytes: float) -> Path:
    """Write a stack of layers whose weights lie in one external file of the given size; return the model's path."""
    rows, columns = 8192, 8192
    length = rows * columns * 4
    layers = max(1, round(gigabytes * 1e9 / length))
    nodes, weights = [], []
    block = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32).tobytes()
    with (folder / "weights.bin").open("wb") as stream:
        for layer in range(layers):
            stream.write(block)
            tensor = TensorProto(name=f"w{layer}", dims=[rows, columns], data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", layer * length), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"h{layer}", f"w{layer}"], [f"m{layer}"], name=f"fc{layer}"))
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"h{layer + 1}"], name=f"relu{layer}"))
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, ["N", columns])],
        weights,
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_relus(path: Path) -> None:
    """Write a model of `RELUS` ReLUs, one behind the other, in which the time of each pass over the nodes shows."""
    nodes = [helper.make_node("Relu", [f"h{number}"], [f"h{number + 1}"]) for number in range(RELUS)]
    nodes.append(helper.make_node("Neg", [f"h{RELUS}"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("h0", "y")]
    graph = helper.make_graph(nodes, "relus", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measure(words: list[str]) -> Measurement:
    """Run a process and return its time and peak memory.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURE, *words], stdout=subprocess.PIPE, check=True, text=True
    )
    seconds, cpu_seconds, peak_kilobytes = done.stdout.split()
    return Measurement(float(seconds), float(cpu_seconds), int(peak_kilobytes) * 1024)


def rewrite_words(source: Path, output: Path) -> list[str]:
    """Return the command line of one run."""
    return [*words_of("rewrite", source), "--kappa", "0.06", "--force", "-o", str(output)]


def words_of(command: str, model: Path) -> list[str]:
    """Return the beginning of a command line."""
    return [sys.executable, "-m", "jr_onnx", command, str(model)]


def median(measurements: list[Measurement]) -> Measurement:
    """Return the median times and the largest peak."""
    return Measurement(
        statistics.median(item.seconds for item in measurements),
        statistics.median(item.cpu_seconds for item in measurements),
        max(item.peak_bytes for item in measurements),
    )


def bench(folder: Path, runs: int, gigabytes: float) -> dict[str, tuple[int, Measurement]]:
    """Return what was measured: name -> size of the model in bytes, median time and largest peak."""
    resnet = folder / "resnet50.onnx"
    onnx.save(ResNet().model(), resnet)
    relus, jumps = folder / "relus.onnx", folder / "relus.jr.onnx"
    write_relus(relus)
    source = folder / "external"
    other = folder / "other"
    source.mkdir()
    other.mkdir()
    external = write_external(source, gigabytes)
    names = ("start", "resnet", "relus", "relus inspected", "relus restored", "beside", "across", "copy")
    found: dict[str, list[Measurement]] = {name: [] for name in names}
    results = [folder / "resnet50.jr.onnx", source / "model.jr.onnx", other / "model.jr.onnx", other / "weights.bin"]
    results.append(folder / "copy.bin")
    for number in range(runs + 1):
        for path in results:  # giving gigabytes of an earlier round back to the file system is not what is measured
            path.unlink(missing_ok=True)
        subprocess.run(["sync"], check=True)
        round_ = {
            "start": measure([sys.executable, "-m", "jr_onnx", "rewrite", "--help"]),
            "resnet": measure(rewrite_words(resnet, folder / "resnet50.jr.onnx")),
            "relus": measure(rewrite_words(relus, jumps)),
            "relus inspected": measure(words_of("inspect", relus)),
            "relus restored": measure([*words_of("restore", jumps), "--force", "-o", str(folder / "back.onnx")]),
            "beside": measure(rewrite_words(external, source / "model.jr.onnx")),
        }
        pair = {
            "across": rewrite_words(external, other / "model.jr.onnx"),
            "copy": ["sh", "-c", _COPY, "sh", str(source / "weights.bin"), str(folder / "copy.bin")],
        }
        # The later of the two finds less room in the page cache, so they take turns.
        for name in sorted(pair, reverse=bool(number % 2)):
            round_[name] = measure(pair[name])
        if number:  # the first round warms the page cache
            for name, item in round_.items():
                found[name].append(item)
    small = relus.stat().st_size
    sizes = {"resnet": resnet.stat().st_size, "start": 0}
    sizes |= {name: small for name in names if name.startswith("relus")}
    data = (source / "weights.bin").stat().st_size
    return {name: (sizes.get(name, data), median(items)) for name, items in found.items()}


def render(found: dict[str, tuple[int, Measurement]], runs: int) -> str:
    """Return the page."""
    titles = {
        "start": "`jr-onnx rewrite --help`, for comparison",
        "resnet": "ResNet-50, weights in the file",
        "relus": f"{RELUS:,} ReLUs in a chain",
        "relus inspected": "the same, `jr-onnx inspect`",
        "relus restored": "its retrofit, `jr-onnx restore`",
        "beside": "external data, output beside the source (nothing is copied)",
        "across": "external data, output in another folder (copied)",
        "copy": "`cp` of the same external data, flushed to the disk as a rewrite does",
    }
    rows = [f"| {titles[name]} | {_cells(size, item)} |" for name, (size, item) in found.items()]
    beyond = found["across"][1].seconds - found["copy"][1].seconds
    size, resnet = found["resnet"]
    today = datetime.datetime.now(datetime.UTC)
    return "\n".join(
        [
            "# Speed of `jr-onnx rewrite`",
            "",
            f"Measured by `python -m tools.bench.rewrite --runs {runs}` on {today:%Y-%m-%d}: {_cpu()}, "
            f"{os.cpu_count()} cores, Python {platform.python_version()}, onnx {onnx.__version__}.",
            "Every run is a fresh process; times are medians, memory is the largest peak (resident set, mapped pages "
            f"included). Rounds are interleaved. Load of the machine at the end: {os.getloadavg()[0]:.1f}.",
            "",
            "| what | size (MB) | time (s) | CPU (s) | peak memory (MB) |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"The ResNet-50 takes {resnet.seconds:.2f} s ({resnet.cpu_seconds:.2f} s of CPU) and "
            f"{resnet.peak_bytes / size:.1f} times the file's size in memory; external data into another folder take "
            + (
                f"{beyond:.2f} s beyond the copy of the data itself."
                if beyond > 0
                else "no longer than that copy alone."
            ),
            "",
            "The clock counts what else the machine does, the CPU column the command's own work alone. Every rewrite "
            "waits until the disk has what it wrote.",
            "",
        ]
    )


def _cells(size: int, item: Measurement) -> str:
    peak = item.peak_bytes / _MEGABYTE
    return f"{size / _MEGABYTE:,.0f} | {item.seconds:.2f} | {item.cpu_seconds:.2f} | {peak:,.0f}"


def _cpu() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def main() -> None:
    """Run the benchmark and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="rounds beside the one that warms up")
    parser.add_argument("--external-gb", type=float, default=4.0, help="gigabytes of external data")
    parser.add_argument("--folder", type=Path, help="where to put the models; needs three times the external data")
    parser.add_argument("--output", type=Path, default=Path("docs/rewrite-speed.md"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jr-bench-", dir=arguments.folder))
    try:
        text = render(bench(folder, arguments.runs, arguments.external_gb), arguments.runs)
    finally:
        shutil.rmtree(folder)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
