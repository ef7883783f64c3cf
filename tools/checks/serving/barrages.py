"""What a client without good intentions sends: bounded, over loopback, from a process of its own.

    python -m tools.checks.serving.barrages NAME HTTP_PORT GRPC_PORT SECONDS

Each barrage opens connections and keeps on as long as it is told to; what the server closes is opened again.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

_BODY_BYTES: Final = 60 << 20
_ANSWER_FLOATS: Final = 2 << 20
_FRAME: Final = 16384
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_BLOCK: Final = bytes(64 * 1024)


class Target:
    """Where to send, and until when."""

    def __init__(self, http_port: int, grpc_port: int, seconds: float) -> None:
        self.http_port = http_port
        self.grpc_port = grpc_port
        self._end = time.monotonic() + seconds

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self._end

    def rounds(self, pause_s: float = 0.2) -> Iterator[None]:
        """Yield until the time is over, with a pause in between."""
        while self.goes_on():
            yield
            time.sleep(pause_s)

    def http(self) -> socket.socket | None:
        """Open a connection, None where the server has no place."""
        return _connect(self.http_port)

    def grpc(self) -> socket.socket | None:
        """Open an HTTP/2 connection with windows as large as they come."""
        connection = _connect(self.grpc_port)
        settings = struct.pack(">HI", 4, 2**31 - 1)
        if connection is not None:
            send(connection, _PREFACE + frame(_SETTINGS, 0, 0, settings))
        return connection


def _connect(port: int) -> socket.socket | None:
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        return None
    connection.settimeout(1.0)
    return connection


def send(connection: socket.socket | None, data: bytes) -> bool:
    """Send as much as the server takes within a second; False if it has closed the connection."""
    if connection is None:
        return False
    try:
        connection.sendall(data)
    except TimeoutError:
        return True
    except OSError:
        connection.close()
        return False
    return True


def drop_input(connection: socket.socket) -> None:
    """Read and forget what there is."""
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass
    connection.settimeout(1.0)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def grpc_headers(stream: int, path: str = _INFER) -> bytes:
    """Return the headers of a call; the stream stays open."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    block = b""
    for name, value in {**fields, "content-type": "application/grpc"}.items():
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return frame(_HEADERS, 4, stream, block)


def post(length: int | None, *, model: str = "echo", extra: str = "") -> bytes:
    """Return the head of an inference request; chunked without a length."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\n{size}\r\n{extra}\r\n".encode()


def echo_request() -> bytes:
    """Return a whole request whose answer has 8 MiB."""
    tensor = {"name": "x", "shape": [1, _ANSWER_FLOATS], "datatype": "FP32"}
    inputs = [{**tensor, "parameters": {"binary_data_size": 4 * _ANSWER_FLOATS}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    extra = f"Inference-Header-Content-Length: {len(head)}\r\n"
    return post(len(head) + 4 * _ANSWER_FLOATS, extra=extra) + head + bytes(4 * _ANSWER_FLOATS)


def trailers(target: Target) -> None:
    """Chunked bodies that have ended, and trailers that do not."""
    while target.goes_on():
        connection = target.http()
        send(connection, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        for _ in range(400):
            if not send(connection, b"a: b\r\n" * 10_000):
                break


def heads(target: Target) -> None:
    """Heads without end: many slow ones, one fast one after the other."""
    slow = [target.http() for _ in range(300)]
    for _ in target.rounds():
        slow = [one if send(one, b"GET / HTTP/1.1\r\na: ") else target.http() for one in slow]
        fast = target.http()
        send(fast, b"GET /" + _BLOCK * 4)


def announcements(target: Target) -> None:
    """Heads that announce the largest body, and nothing of it."""
    held = [target.http() for _ in range(200)]
    for _ in target.rounds(1.0):
        held = [one if send(one, b"") else target.http() for one in held]
        for one in held:
            send(one, post(_BODY_BYTES)[:-2] + b"\r\n")


def bodies(target: Target) -> None:
    """Bodies of which the last bytes never come."""
    held: list[socket.socket | None] = []
    for _ in target.rounds():
        if len(held) < 24:
            held.append(target.http())
            send(held[-1], post(_BODY_BYTES))
        held = [one for one in held if send(one, _BLOCK * 64)]


def chunks(target: Target) -> None:
    """Chunked bodies without end, in chunks of one byte and of many."""
    while target.goes_on():
        one, other = target.http(), target.http()
        send(one, post(None))
        send(other, post(None))
        for _ in range(100):
            if not (send(one, b"1\r\nx\r\n" * 10_000) | send(other, b"10000\r\n" + _BLOCK + b"\r\n")):
                break


def strings(target: Target) -> None:
    """Many short strings and a long one where numbers belong."""
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ["a"] * 400_000 + ["x" * 3_000_000]}
    body = json.dumps({"inputs": [tensor]}).encode()
    _ask(target, post(len(body)) + body)


def lists(target: Target) -> None:
    """Lists of nothing, each of which takes far more memory than text."""
    body = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[' + b"[]," * 2_000_000 + b"[]]}]}"
    _ask(target, post(len(body)) + body)


def numbers(target: Target) -> None:
    """As much JSON as is allowed, all of it in order."""
    count = 2_000_000
    tensor = f'{{"name":"x","shape":[1,{count}],"datatype":"FP32","data":['.encode()
    body = b'{"inputs":[' + tensor + b"0.5," * (count - 1) + b"1]}]}"
    _ask(target, post(len(body)) + body)


def compressed(target: Target) -> None:
    """Compressed bodies: zeros that become far too many, and noise that stays as long as it was."""
    noise = os.urandom(1 << 20)
    bodies = gzip.compress(bytes(200 << 20), 1), gzip.compress(noise * 58, 0)
    held: list[socket.socket | None] = []
    for _ in target.rounds():
        while len(held) < 16:
            held.append(target.http())
            body = bodies[len(held) % 2]
            send(held[-1], post(len(body), extra="Content-Encoding: gzip\r\n") + body)
        held = [one for one in held if send(one, b"")][4:]


def _ask(target: Target, request: bytes) -> None:
    while target.goes_on():
        connection = target.http()
        if connection is None or not send(connection, request):
            continue
        connection.settimeout(10.0)
        with contextlib.suppress(OSError):
            connection.recv(65536)
        connection.close()


def unread(target: Target) -> None:
    """Answers of 8 MiB that the client never reads."""
    request = echo_request()
    held: list[socket.socket | None] = []
    for _ in target.rounds():
        if len(held) < 100:
            held.append(target.http())
            send(held[-1], request)
        held = [one for one in held if send(one, b"")]


def cancelled(target: Target) -> None:
    """Whole requests whose clients leave at once."""
    request = echo_request()
    for _ in target.rounds(0.02):
        connection = target.http()
        send(connection, request)
        if connection is not None:
            connection.close()


def pipelined(target: Target) -> None:
    """Thousands of requests at once, and not one answer read."""
    request = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n" * 5000
    held = [target.http() for _ in range(50)]
    for _ in target.rounds():
        held = [one if send(one, request) else target.http() for one in held]


def idle(target: Target) -> None:
    """More connections than the server has places for, none of which asks."""
    held: list[socket.socket | None] = []
    for _ in target.rounds(0.05):
        held.extend(target.http() for _ in range(20))
        held.extend(target.grpc() for _ in range(20))
        for one in held[:-1600]:
            if one is not None:
                one.close()
        held = held[-1600:]


def messages(target: Target) -> None:
    """Messages over gRPC of which the last bytes never come."""
    _unended(target, _INFER)


def unended(target: Target) -> None:
    """The same in streams of messages."""
    _unended(target, _STREAM)


def _unended(target: Target, path: str) -> None:
    held: list[tuple[socket.socket | None, int]] = []
    prefix = b"\0" + struct.pack(">I", _BODY_BYTES)
    for _ in target.rounds(0.05):
        if len(held) < 24:
            connection = target.grpc()
            send(connection, grpc_headers(1, path) + frame(_DATA, 0, 1, prefix))
            held.append((connection, 0))
        kept: list[tuple[socket.socket | None, int]] = []
        for connection, sent in held:
            # The server opens its windows as it reads; a megabyte at a time never overruns them.
            if sent < _BODY_BYTES - (1 << 20) and connection is not None:
                drop_input(connection)
                if not send(connection, frame(_DATA, 0, 1, _BLOCK[:_FRAME]) * 32):
                    continue
                sent += 32 * _FRAME
            if connection is not None and send(connection, b""):
                kept.append((connection, sent))
        held = kept


def streams(target: Target) -> None:
    """Calls of which nothing but the headers comes."""
    held = [target.grpc() for _ in range(30)]
    opened = 0
    for _ in target.rounds():
        for index, one in enumerate(held):
            block = b"".join(grpc_headers(2 * number + 1) for number in range(opened, opened + 25))
            if not send(one, block if opened < 100 else b""):
                held[index] = target.grpc()
        opened += 25


def pings(target: Target) -> None:
    """Frames that only want an answer, which is not read."""
    flood = frame(_PING, 0, 0, bytes(8)) * 2000 + frame(_SETTINGS, 0, 0, b"") * 2000
    _flood(target, flood)


def windows(target: Target) -> None:
    """The smallest frames there are, for a window that stays unused."""
    _flood(target, frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 20_000)


def resets(target: Target) -> None:
    """Calls that are taken back as soon as they are made."""
    for _ in target.rounds(0.02):
        connection = target.grpc()
        for first in range(1, 20_000, 200):
            numbers = range(first, first + 200, 2)
            calls = b"".join(grpc_headers(one) + frame(_RST_STREAM, 0, one, bytes(4)) for one in numbers)
            if not send(connection, calls):
                break
        if connection is not None:
            connection.close()


def header_blocks(target: Target) -> None:
    """Header blocks without end."""
    while target.goes_on():
        connection = target.grpc()
        send(connection, frame(_HEADERS, 0, 1, b"\x00\x01a\x01b" * 100))
        for _ in range(1000):
            if not send(connection, frame(_CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 3000)):
                break


def _flood(target: Target, data: bytes) -> None:
    held = [target.grpc() for _ in range(10)]
    for _ in target.rounds(0.02):
        held = [one if send(one, data) else target.grpc() for one in held]


BARRAGES: Final[dict[str, Callable[[Target], None]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        trailers, heads, announcements, bodies, chunks, strings, lists, numbers, compressed, unread, cancelled,
        pipelined, idle, messages, unended, streams, pings, windows, resets, header_blocks,
    )
}  # fmt: skip


def main(words: list[str]) -> None:
    """Send one barrage."""
    name, http_port, grpc_port, seconds = words
    BARRAGES[name](Target(int(http_port), int(grpc_port), float(seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
