"""Measure `jr-onnx serve` against a server written with kserve alone, and joined requests against single ones.

    python -m tools.bench_serve --seconds 4 --rounds 5

All servers run at the same time and are loaded in turn, round by round, so that what else this machine does hits all of
them; ratios are medians over the rounds. The load comes from another process over loopback. Both servers run the same
retrofit, each in one ONNX Runtime thread.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.bench.environment import describe
from jr_onnx.bench.models import build
from jr_onnx.rewrite import rewrite
from tools.serving.processes import ROOT, ServerProcess, jr_onnx, running

_KAPPA = 0.06
_PATH = "/v2/models/model/infer"


@dataclass(frozen=True)
class Request:
    """A request as bytes: a file, and how much of it is JSON (0 for all, or for gRPC)."""

    kind: str
    file: Path
    header_length: int = 0


@dataclass(frozen=True)
class Contest:
    """Two servers under the same load; the ratio is the first over the second."""

    title: str
    request: Request
    clients: int
    first: ServerProcess
    second: ServerProcess


def conv_model(side: int) -> onnx.ModelProto:
    """Return a small convolution network on images of shape (N, 3, side, side)."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [weight("w0", 8, 3, 3, 3), weight("w1", 8, 8, 3, 3), weight("w2", 8, 10)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_model(proto: onnx.ModelProto, path: Path) -> Path:
    """Retrofit a model with one kappa and write it."""
    source = path.with_suffix(".source.onnx")
    onnx.save(proto, source)
    rewrite(source, _KAPPA, output=path)
    return path


def write_requests(model: Path, folder: Path) -> dict[str, Request]:
    """Write one request of batch 1 as binary tensors, JSON and a gRPC message."""
    entry = onnx.load(model).graph.input[0]
    sizes = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    array = np.random.default_rng(1).random(sizes, dtype=np.float32)
    tensor: dict[str, Any] = {"name": entry.name, "shape": sizes, "datatype": "FP32"}
    raw = array.tobytes()
    header = orjson.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    files = {kind: folder / f"{model.stem}.{kind}" for kind in ("binary", "json", "grpc")}
    files["binary"].write_bytes(header + raw)
    files["json"].write_bytes(orjson.dumps({"inputs": [{**tensor, "data": array.ravel().tolist()}]}))
    code = (
        "import sys, orjson; sys.argv = sys.argv[:1] + sys.argv[1:]\n"
        "arguments, sys.argv = sys.argv[1:], sys.argv[:1]\n"
        "from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb\n"
        "tensor, raw, out = orjson.loads(arguments[0]), open(arguments[1], 'rb').read(), arguments[2]\n"
        "request = pb.ModelInferRequest(model_name='model', inputs=[tensor], raw_input_contents=[raw])\n"
        "open(out, 'wb').write(request.SerializeToString())\n"
    )
    raw_file = folder / f"{model.stem}.raw"
    raw_file.write_bytes(raw)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, orjson.dumps(tensor).decode(), str(raw_file), str(files["grpc"])],
        check=True,
    )
    return {
        "binary": Request("http", files["binary"], len(header)),
        "json": Request("http", files["json"]),
        "grpc": Request("grpc", files["grpc"]),
    }


def load(server: ServerProcess, request: Request, clients: int, seconds: float) -> dict[str, float]:
    """Load a server and return requests per second and latencies."""
    target = server.http if request.kind == "http" else server.grpc
    words = [request.kind, target, _PATH, str(request.file), str(request.header_length), str(clients), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.serving.load", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    if result["failures"]:
        raise RuntimeError(f"{result['failures']} requests failed: {server.log}")
    return result


def compare(contest: Contest, rounds: int, seconds: float) -> dict[str, Any]:
    """Load both servers in turn and return medians, and the median and range of the ratios."""
    servers = (contest.first, contest.second)
    for server in servers:
        load(server, contest.request, contest.clients, min(1.0, seconds))
    results: list[list[dict[str, float]]] = [[], []]
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            results[index].append(load(servers[index], contest.request, contest.clients, seconds))
    ratios = [one["rps"] / other["rps"] for one, other in zip(*results, strict=True)]
    median = [{key: statistics.median(row[key] for row in rows) for key in rows[0]} for rows in results]
    return {
        "contest": contest.title,
        "clients": contest.clients,
        "first": median[0],
        "second": median[1],
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "p99_over_p50": median[0]["p99_ms"] / median[0]["p50_ms"],
    }


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def contests(stack: ExitStack, folder: Path, chosen: str) -> list[Contest]:
    """Start all servers and return who competes."""

    def ours(model: Path, *options: str) -> ServerProcess:
        return stack.enter_context(running(jr_onnx(f"model={model}", "--threads", "1", *options)))

    def stock(model: Path) -> ServerProcess:
        script = str(ROOT / "tools" / "serving" / "stock_kserve.py")
        server = stack.enter_context(running([script, str(model), str(free_port()), str(free_port())]))
        _wait_for_port(server.http_port)
        return server

    found: list[Contest] = []
    if "kserve" in chosen:
        small = write_model(conv_model(32), folder / "small.onnx")
        large = write_model(conv_model(224), folder / "large.onnx")
        for model, name, kinds in ((small, "3x32x32", ("binary", "json", "grpc")), (large, "3x224x224", ("binary",))):
            requests = write_requests(model, folder)
            pair = (ours(model), stock(model))
            found += [Contest(f"jr-onnx / stock kserve, {name}, {kind}", requests[kind], 16, *pair) for kind in kinds]
    if "batching" in chosen:
        for title, proto in (("MLP 784-2048-2048-10", build("mlp")), ("WideResNet", build("wide_resnet"))):
            model = write_model(proto, folder / f"{title.split()[0].lower()}.onnx")
            request = write_requests(model, folder)["binary"]
            found.append(
                Contest(f"joined / single, {title}, binary", request, 32, ours(model), ours(model, "--max-batch", "0"))
            )
    return found


def _wait_for_port(port: int) -> None:
    import time

    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contests", default="kserve,batching")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    rows = []
    with TemporaryDirectory(prefix="jr-onnx-bench-") as folder, ExitStack() as stack:
        print("contest | clients | first rps (p50/p99 ms) | second rps (p50/p99 ms) | ratio (range)", file=sys.stderr)
        for contest in contests(stack, Path(folder), options.contests):
            rows.append(compare(contest, options.rounds, options.seconds))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    environment = describe(before)
    if options.json:
        print(json.dumps({"environment": environment.to_json(), "contests": rows}, indent=1))
    else:
        machine = f"{environment.date}, {environment.cpu}, {environment.cores} cores"
        print(f"{machine}, load {before:.1f} to {os.getloadavg()[0]:.1f}")


def _line(row: dict[str, Any]) -> str:
    both = (row["first"], row["second"])
    sides = [f"{side['rps']:.0f} ({side['p50_ms']:.2f}/{side['p99_ms']:.2f})" for side in both]
    low, high = row["ratio_range"]
    return f"{row['contest']} | {row['clients']} | {sides[0]} | {sides[1]} | {row['ratio']:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
