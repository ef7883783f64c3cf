"""Clients of the load test: each asks over one connection, good requests and bad ones, and judges every answer.

What a server owes: whatever it accepted, it answers. A client counts every answer it gets, and those that the server's
own count cannot know apart: refusals that gRPC itself gives before the server's code sees the request.
"""

from __future__ import annotations

import http.client
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from tools.checks.serving.known import Array, Known, Tally, fault_of_drawn, ramp

COMPARED = "answers compared"
DRAWN = "answers of a drawn kappa compared"
REFUSED = "bad requests refused"
CUT_OFF = "connection closed before an answer"
CUT_OFF_LATER = "connection closed after the stop, before an answer"
TIMEOUT_S = 60
TOO_LARGE_BYTES = 3 << 20
"""Bytes of a request that the server, started with less, must refuse."""


class Client(threading.Thread, ABC):
    """Asks over one connection until it is told to stop, or the server no longer accepts.

    Args:
        number: Seeds what is asked.
        target: Host and port.
        known: Requests and their answers.
        tally: Where outcomes are counted.
        stop: Set when enough was asked.
        stopping: Set before the server is told to stop; from then on it may refuse.
        asks_badly: Bad requests are among those that are made.
    """

    transport = ""

    def __init__(
        self,
        number: int,
        target: str,
        known: Known,
        tally: Tally,
        stop: threading.Event,
        stopping: threading.Event,
        *,
        asks_badly: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self.generator = np.random.default_rng(number)
        self.target = target
        self.known = known
        self.tally = tally
        self.stopping = stopping
        self._asks_badly = asks_badly
        self._stop_event = stop

    def run(self) -> None:
        """Ask and compare."""
        *good, bad = self.asks()
        asks = [*good, bad] if self._asks_badly else good
        try:
            while not self._stop_event.is_set():
                if not self.attempt(asks[self.generator.integers(len(asks))]):
                    return
        except Exception as error:  # noqa: BLE001 - a client that dies must not look like one with nothing to say
            self.tally.fail(f"a client died: {error!r}")
        finally:
            self.close()

    @abstractmethod
    def asks(self) -> tuple[Callable[[], None], ...]:
        """Return the kinds of requests, bad ones last; each makes one, and counts the answer."""

    @abstractmethod
    def attempt(self, ask: Callable[[], None]) -> bool:
        """Make one request; False if there is no server to ask any more."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def pick(self) -> int:
        """Return the index of a known request."""
        return int(self.generator.integers(len(self.known.rows)))

    def compare(self, answer: Array, index: int) -> None:
        """Judge an answer of the fixed retrofit."""
        self._judge(self.known.fault(answer, index), COMPARED)

    def compare_drawn(self, answer: Array) -> None:
        """Judge an answer of the retrofit that draws its kappa."""
        self._judge(fault_of_drawn(answer), DRAWN)

    def _judge(self, fault: str | None, kind: str) -> None:
        if fault is not None:
            self.tally.fail(f"over {self.transport}: {fault}")
        self.tally.add(f"{self.transport}: {kind}")


class RestClient(Client):
    """Asks over HTTP with binary tensors and JSON."""

    transport = "REST"

    def asks(self) -> tuple[Callable[[], None], ...]:
        """Two in five are binary, one each JSON, a drawn kappa, and bad."""
        self._connection = http.client.HTTPConnection(self.target, timeout=TIMEOUT_S)
        return (self._good_binary, self._good_binary, self._good_json, self._drawn, self._bad)

    def attempt(self, ask: Callable[[], None]) -> bool:
        """Make one request; a connection may be closed between two of them, the counts tell whether one was lost."""
        try:
            ask()
        except ConnectionRefusedError:
            if not self.stopping.is_set():
                self.tally.fail("over REST: a connection was refused while the server should serve")
            return False
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self.tally.add(f"REST: {CUT_OFF_LATER if self.stopping.is_set() else CUT_OFF}")
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, path: str, body: bytes, length: int | None = None) -> tuple[int, bytes, int]:
        headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        self.tally.add(f"REST: status {response.status}")
        return response.status, data, int(response.headers.get("Inference-Header-Content-Length", 0))

    def _good_binary(self) -> None:
        index = self.pick()
        body, length = binary_body(self.known.rows[index])
        status, data, start = self._send("/v2/models/fixed/infer", body, length)
        if self._expect_good(status, data):
            self.compare(np.frombuffer(data[start:], np.float32).reshape(_shape(data[:start])), index)

    def _good_json(self) -> None:
        index = self.pick()
        rows = self.known.rows[index]
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}
        status, data, _ = self._send("/v2/models/fixed/infer", json.dumps({"inputs": [tensor]}).encode())
        if self._expect_good(status, data):
            values = json.loads(data)["outputs"][0]["data"]
            self.compare(np.array(values, np.float32).reshape(_shape(data)), index)

    def _drawn(self) -> None:
        body, length = binary_body(ramp())
        status, data, start = self._send("/v2/models/drawn/infer", body, length)
        if self._expect_good(status, data):
            self.compare_drawn(np.frombuffer(data[start:], np.float32))

    def _bad(self) -> None:
        body, length = binary_body(self.known.rows[0])
        fixed = "/v2/models/fixed/infer"
        choices: list[tuple[int, str, bytes, int | None]] = [
            (404, "/v2/models/nothing/infer", body, length),
            (400, fixed, body[:-3], length),
            (400, fixed, body + b"extra", length),
            (400, fixed, body[: length // 2], None),
            (400, fixed, body.replace(b"FP32", b"FP64"), length),
            (400, fixed, body.replace(b'"x"', b'"z"'), length),
            (400, fixed, body.replace(b"64]", b"-4]"), length),
            (400, fixed, bytes(self.generator.bytes(200)), None),
            (413, fixed, b" " * TOO_LARGE_BYTES, None),
        ]
        expected, path, data, size = choices[self.generator.integers(len(choices))]
        status, answer, _ = self._send(path, data, size)
        if status != expected or list(json.loads(answer)) != ["error"]:
            self.tally.fail(f"over REST: a bad request got {status}, expected {expected}: {answer[:200]!r}")
        self.tally.add(f"REST: {REFUSED}")

    def _expect_good(self, status: int, data: bytes) -> bool:
        if status != http.client.OK:
            self.tally.fail(f"over REST: a good request got {status}: {data[:200]!r}")
        return status == http.client.OK


def binary_body(rows: Array) -> tuple[bytes, int]:
    """Return a request with binary tensors, and how much of it is JSON."""
    parameters = {"binary_data_size": rows.nbytes}
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + rows.tobytes(), len(head)


def _shape(answer: bytes) -> list[int]:
    shape: list[int] = json.loads(answer)["outputs"][0]["shape"]
    return shape
