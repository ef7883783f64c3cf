"""Load `jr-onnx serve` for minutes, compare every answer, watch memory, and stop the server in mid-load.

    python -m tools.load_test --seconds 300

Good requests bring batches of several sizes to a fixed retrofit and to one that draws its kappa. An answer of the fixed
one must be that of the session in this process, up to rounding as `jr-onnx verify` derives it; an answer of the drawn
one must be explained by a single kappa of its range. Bad requests must be refused with a 4xx. At the end SIGTERM comes
while requests go on: every one that the server accepted must have been answered.

Leaves with 1 and says what was wrong, or prints the counts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import RandomKappa
from jr_onnx.rewrite import rewrite
from jr_onnx.verify.tolerance import rounding_bound
from tools.serving.processes import ServerProcess, jr_onnx, running

_KAPPA, _LOW, _HIGH = 0.06, 0.1, 0.2
_WIDTH = 64
_BATCHES = (1, 1, 1, 2, 5, 16)
_STOPPED = re.compile(r"stopped: (\d+) requests accepted, (\d+) answered")
_KINDS = ("answers compared", "answers of a drawn kappa compared", "bad requests refused")
_FEWEST = 20
"""Of each kind in a test of any length; fewer mean that nothing was tested."""

_GROWTH_BYTES = 48 << 20
"""Memory that may be added after the first fifth of the time: allocators settle, a leak does not."""

Array = np.ndarray[Any, Any]


@dataclass
class Tally:
    """What all clients have seen."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, key: str) -> None:
        """Count one outcome."""
        with self.lock:
            self.counts[key] += 1

    def fail(self, what: str) -> None:
        """Note what must not happen."""
        with self.lock:
            self.wrong.append(what)


@dataclass(frozen=True)
class Known:
    """Requests with their answers, computed in this process."""

    rows: list[Array]
    answers: list[Array]
    bound: float


def _binary(rows: Array) -> tuple[bytes, int]:
    """Return a request with binary tensors, and how much of it is JSON."""
    tensor = {
        "name": "x",
        "shape": list(rows.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": rows.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + rows.tobytes(), len(head)


class Client(threading.Thread):
    """Asks over one connection until it is told to stop."""

    def __init__(self, number: int, port: int, known: Known, tally: Tally, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._generator = np.random.default_rng(number)
        self._port = port
        self._known = known
        self._tally = tally
        self._stop_event = stop
        self._asks = (self._good_binary, self._good_binary, self._good_json, self._drawn, self._bad)

    def run(self) -> None:
        """Ask and compare."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop_event.is_set():
            ask = self._asks[self._generator.integers(len(self._asks))]
            try:
                ask(connection)
            except ConnectionRefusedError:
                return  # the server has closed its door
            except (OSError, http.client.HTTPException):
                connection.close()
                self._tally.add("connection closed before an answer")
            except Exception as error:  # noqa: BLE001 - a client that dies must not look like one with nothing to say
                self._tally.fail(f"a client died: {error!r}")
                return
        connection.close()

    def _send(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, length: int | None = None
    ) -> tuple[int, bytes, int]:
        headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        data = response.read()
        self._tally.add(f"status {response.status}")
        return response.status, data, int(response.headers.get("Inference-Header-Content-Length", 0))

    def _good_binary(self, connection: http.client.HTTPConnection) -> None:
        index = int(self._generator.integers(len(self._known.rows)))
        body, length = _binary(self._known.rows[index])
        status, data, start = self._send(connection, "/v2/models/fixed/infer", body, length)
        if self._expect(status, data):
            answer = np.frombuffer(data[start:], np.float32).reshape(self._known.answers[index].shape)
            self._compare(answer, index)

    def _good_json(self, connection: http.client.HTTPConnection) -> None:
        index = int(self._generator.integers(len(self._known.rows)))
        rows = self._known.rows[index]
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}
        status, data, _ = self._send(connection, "/v2/models/fixed/infer", json.dumps({"inputs": [tensor]}).encode())
        if self._expect(status, data):
            output = json.loads(data)["outputs"][0]
            self._compare(np.array(output["data"], np.float32).reshape(output["shape"]), index)

    def _drawn(self, connection: http.client.HTTPConnection) -> None:
        ramp = np.linspace(_LOW, _HIGH, _WIDTH, dtype=np.float32)[None]
        body, length = _binary(ramp)
        status, data, start = self._send(connection, "/v2/models/drawn/infer", body, length)
        if self._expect(status, data):
            answer = np.frombuffer(data[start:], np.float32)
            passed = answer != 0
            is_one_kappa = bool((np.diff(passed.astype(int)) >= 0).all())
            if not is_one_kappa or not np.array_equal(answer[passed], ramp[0][passed]):
                self._tally.fail(f"no kappa explains the answer {answer.tolist()}")
            self._tally.add("answers of a drawn kappa compared")

    def _bad(self, connection: http.client.HTTPConnection) -> None:
        body, length = _binary(self._known.rows[0])
        choices: list[tuple[str, bytes, int | None]] = [
            ("/v2/models/nothing/infer", body, length),
            ("/v2/models/fixed/infer", body[:-3], length),
            ("/v2/models/fixed/infer", body + b"extra", length),
            ("/v2/models/fixed/infer", body[: length // 2], None),
            ("/v2/models/fixed/infer", body.replace(b"FP32", b"FP64"), length),
            ("/v2/models/fixed/infer", body.replace(b'"x"', b'"z"'), length),
            ("/v2/models/fixed/infer", bytes(self._generator.bytes(200)), None),
            ("/v2/models/fixed/infer", b" " * (3 << 20), None),
        ]
        path, data, size = choices[self._generator.integers(len(choices))]
        status, answer, _ = self._send(connection, path, data, size)
        if not 400 <= status < 500 or list(json.loads(answer)) != ["error"]:
            self._tally.fail(f"a bad request got {status}: {answer[:200]!r}")
        self._tally.add("bad requests refused")

    def _expect(self, status: int, data: bytes) -> bool:
        if status != 200:
            self._tally.fail(f"a good request got {status}: {data[:200]!r}")
        return status == 200

    def _compare(self, answer: Array, index: int) -> None:
        distance = float(np.abs(answer - self._known.answers[index]).max())
        if not distance <= self._known.bound:
            self._tally.fail(f"an answer is off by {distance}, expected {self._known.bound} at most")
        self._tally.add("answers compared")


def write_models(folder: Path) -> Path:
    """Write the two retrofits and return the original of the fixed one."""
    generator = np.random.default_rng(0)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", _WIDTH]) for name in ("x", "y")]
    weights = [
        numpy_helper.from_array((generator.standard_normal((_WIDTH, _WIDTH)) / 8).astype(np.float32), name)
        for name in ("v", "w")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    for name, graph_nodes, initializers in (("net", nodes, weights), ("relu", relu, [])):
        graph = helper.make_graph(graph_nodes, name, values[:1], values[1:], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
    rewrite(folder / "net.onnx", _KAPPA, output=folder / "fixed.jr.onnx")
    rewrite(folder / "relu.onnx", RandomKappa(_LOW, _HIGH), output=folder / "drawn.jr.onnx")
    return folder / "net.onnx"


def known_answers(original: Path, retrofit: Path) -> Known:
    """Compute the expected answers, and how far correct ones may be apart.

    Inputs whose pre-activations come near the jump are left out: there rounding decides, and both sides are right.
    """
    import onnxruntime

    from jr_onnx.runtime.session import InferenceSession

    generator = np.random.default_rng(1)
    session = InferenceSession(str(retrofit), providers=["CPUExecutionProvider"])
    plain = onnxruntime.InferenceSession(str(original), providers=["CPUExecutionProvider"])
    first = numpy_helper.to_array(onnx.load(original).graph.initializer[0]).astype(np.float64)
    rows: list[Array] = []
    while len(rows) < 60:
        batch = generator.standard_normal((_BATCHES[len(rows) % len(_BATCHES)], _WIDTH)).astype(np.float32)
        if np.abs(batch @ first - _KAPPA).min() > 1e-5:  # some hundred roundings of a sum of 64 terms
            rows.append(batch)
    answers = [session.run(None, {"x": batch})[0] for batch in rows]
    together = plain.run(None, {"x": np.concatenate(rows)})[0]
    apart = np.concatenate([plain.run(None, {"x": row[None]})[0] for row in np.concatenate(rows)])
    return Known(rows, answers, rounding_bound([(together, apart)]).value)


def load(server: ServerProcess, known: Known, clients: int, seconds: float, tally: Tally) -> list[int]:
    """Load the server, note its memory every second, and stop it while requests go on."""
    stop = threading.Event()
    threads = [Client(number, server.http_port, known, tally, stop) for number in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        time.sleep(1.0)
        memory.append(server.memory_bytes())
    code = server.terminate()
    stop.set()
    for thread in threads:
        thread.join(60)
    if code != 0:
        tally.fail(f"the server left with exit code {code}: {server.log[-2000:]}")
    return memory


def judge(server: ServerProcess, memory: list[int], tally: Tally) -> None:
    """Note what is wrong about memory and about requests that were lost."""
    settled = memory[len(memory) // 5]
    if memory[-1] - settled > _GROWTH_BYTES:
        tally.fail(f"memory grew from {settled >> 20} to {memory[-1] >> 20} MiB")
    for kind in _KINDS:
        if tally.counts[kind] < _FEWEST:
            tally.fail(f"only {tally.counts[kind]} times: {kind}")
    match = _STOPPED.search(server.log)
    answered = sum(count for key, count in tally.counts.items() if key.startswith("status "))
    if match is None or not int(match[1]) == int(match[2]) == answered:
        tally.fail(f"the clients have {answered} answers, the server says: {server.log[-300:]}")
    for key in tally.counts:
        if key.startswith("status 5"):
            tally.fail(f"{tally.counts[key]} requests got {key}")


def main() -> int:
    """Run the test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=12)
    options = parser.parse_args()
    tally = Tally()
    with TemporaryDirectory(prefix="jr-onnx-load-") as name:
        folder = Path(name)
        known = known_answers(write_models(folder), folder / "fixed.jr.onnx")
        models = (folder / "fixed.jr.onnx", folder / "drawn.jr.onnx")
        with running(jr_onnx(*models, "--max-body-mib", "2", "--max-json-mib", "1")) as server:
            memory = load(server, known, options.clients, options.seconds, tally)
            judge(server, memory, tally)
    for key, count in sorted(tally.counts.items()):
        print(f"{count:>9}  {key}")
    print(f"memory: {memory[len(memory) // 5] >> 20} MiB after a fifth of the time, {memory[-1] >> 20} MiB at the end")
    for what in tally.wrong[:20]:
        print(f"WRONG: {what}")
    print("passed" if not tally.wrong else f"FAILED: {len(tally.wrong)} things were wrong")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
