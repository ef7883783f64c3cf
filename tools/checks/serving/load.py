"""Load for a server: N connections that each ask again as soon as they have their answer.

The client must cost less than what it measures: requests are built once, and answers are only counted. It runs in a
process of its own and prints one JSON object.

    python -m tools.checks.serving.load http 127.0.0.1:8000 PATH request.bin HEADER_LENGTH CLIENTS SECONDS
    python -m tools.checks.serving.load grpc 127.0.0.1:8001 - request.bin 0 CLIENTS SECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_INFER = "/inference.GRPCInferenceService/ModelInfer"


class _Connection(asyncio.Protocol):
    """One HTTP connection; reads heads and lengths, no more."""

    def __init__(self, request: bytes, state: _State) -> None:
        self._request = request
        self._state = state
        self._buffer = bytearray()
        self._sent = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        start = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._state.record(head.split(b" ", 2)[1] == b"200", time.perf_counter() - self._sent)
        del self._buffer[: end + 4 + length]
        if self._state.is_over():
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._state.lost(early=not self._state.is_over())

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


class _State:
    """What all connections record."""

    def __init__(self, clients: int, seconds: float) -> None:
        self.end = time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.failures = 0
        self._left = clients
        self.done = asyncio.get_running_loop().create_future()

    def is_over(self) -> bool:
        return time.perf_counter() >= self.end

    def record(self, good: bool, seconds: float) -> None:
        self.latencies.append(seconds)
        self.failures += not good

    def lost(self, *, early: bool) -> None:
        self.failures += early
        self._left -= 1
        if self._left == 0:
            self.done.set_result(None)


async def http(target: str, path: str, body: bytes, header_length: int, clients: int, seconds: float) -> _State:
    """Load over HTTP; a header length of 0 means that the body is JSON."""
    host, _, port = target.partition(":")
    length = f"Inference-Header-Content-Length: {header_length}\r\n" if header_length else ""
    kind = "application/octet-stream" if header_length else "application/json"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: {kind}\r\n{length}Content-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    state = _State(clients, seconds)
    request = head.encode() + body
    for _ in range(clients):
        await loop.create_connection(lambda: _Connection(request, state), host, int(port))
    await state.done
    return state


async def grpc(target: str, body: bytes, clients: int, seconds: float) -> _State:
    """Load over gRPC with messages that are bytes already."""
    from grpc import aio

    state = _State(clients, seconds)
    limits = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]

    async def client() -> None:
        async with aio.insecure_channel(target, options=limits) as channel:
            infer = channel.unary_unary(_INFER)
            while not state.is_over():
                sent = time.perf_counter()
                await infer(body)
                state.record(True, time.perf_counter() - sent)

    await asyncio.gather(*(client() for _ in range(clients)))
    return state


def main(arguments: list[str]) -> None:
    """Run the load that the arguments name, and print requests per second and latencies in milliseconds."""
    kind, target, path, file, header_length, clients, seconds = arguments
    body = Path(file).read_bytes()
    if kind == "http":
        work = http(target, path, body, int(header_length), int(clients), float(seconds))
    else:
        work = grpc(target, body, int(clients), float(seconds))
    started = time.perf_counter()
    state = _run(work)
    taken = time.perf_counter() - started
    quantiles = np.quantile(state.latencies, [0.5, 0.99]) * 1e3
    result = {
        "rps": len(state.latencies) / taken,
        "p50_ms": float(quantiles[0]),
        "p99_ms": float(quantiles[1]),
        "failures": state.failures,
    }
    print(json.dumps(result))


def _run(work: Any) -> _State:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        state: _State = runner.run(work)
        return state


if __name__ == "__main__":
    main(sys.argv[1:])
