"""What hostile clients send, over both transports: it is bounded and timed, and disturbs no other client."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.serve.support import GOOD, Rest, changed, request
from tools.checks.serving.barrages import frame, grpc_headers
from tools.checks.serving.processes import ServerProcess, jr_onnx, running

TIMEOUT_S = 1.0
DATA, HEADERS, PING, CONTINUATION = 0, 1, 6, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
FIELD = bytes([0, 1, 97, 1, 98])  # a: b
MESSAGE = b"\0" + struct.pack(">I", 1000)


@pytest.fixture(scope="module")
def hasty(models: dict[str, Path]) -> Iterator[ServerProcess]:
    """A server that waits for a second, and has little memory to give away."""
    options = ("--timeout", str(TIMEOUT_S), "--max-body-mib", "4", "--max-json-mib", "2", "--max-total-mib", "8")
    with running(jr_onnx(models["fixed"], models["slow"], *options)) as process:
        yield process


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def floods(connection: socket.socket, data: bytes, most: int) -> bool:
    """Send until the server closes the connection; False if it took all of it."""
    try:
        for _ in range(most):
            connection.sendall(data)
    except ConnectionError:
        return True
    return False


def is_well(server: ServerProcess) -> bool:
    client = Rest(server.http_port)
    try:
        return client.infer("fixed", GOOD).status == 200
    finally:
        client.close()


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        found.append((data[3], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def test_one_long_string_among_short_ones_takes_no_memory(rest: Rest, server: ServerProcess) -> None:
    before = server.peak_bytes()
    answer = rest.infer("fixed", changed(data=["a"] * 20_000 + ["x" * 500_000]))
    assert (answer.status, "20001 elements" in answer.error) == (400, True)
    assert rest.infer("fixed", changed(data=["x" * 500_000] + ["a"] * 31)).status == 400
    assert server.peak_bytes() - before < 64 << 20


@pytest.mark.parametrize("wrong", [True, "1", None, [], {}], ids=repr)
def test_one_element_of_another_type_is_refused(rest: Rest, wrong: object) -> None:
    assert rest.infer("fixed", changed(data=[0.5] * 31 + [wrong])).status == 400


def test_more_lists_than_any_request_needs_are_refused_before_they_are_made(rest: Rest) -> None:
    body = b'{"inputs":[{"name":"x","shape":[2,16],"datatype":"FP32","data":[' + b"[]," * 200_000 + b"[]]}]}"
    answer = rest.infer("fixed", body)
    assert (answer.status, "lists and objects" in answer.error) == (400, True)


def test_trailers_and_heads_without_end_close_the_connection(hasty: ServerProcess) -> None:
    with connect(hasty.http_port) as trailers:
        trailers.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        assert floods(trailers, b"a: b\r\n" * 10_000, 100)
    with connect(hasty.http_port) as head:
        head.sendall(b"GET / HTTP/1.1\r\n")
        assert floods(head, b"a: " + b"b" * 10_000, 1000)
    assert is_well(hasty)


def test_trailers_that_end_are_dropped(rest: Rest, server: ServerProcess) -> None:
    del rest
    with connect(server.http_port) as connection:
        connection.sendall(
            b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nauthorization: a\r\n"
            b"\r\n"
            b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert until_closed(connection).count(b"HTTP/1.1 200 ") == 2


def test_announced_bodies_cost_nothing_until_they_come(hasty: ServerProcess) -> None:
    head = b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    held = [connect(hasty.http_port) for _ in range(16)]
    for connection in held:
        connection.sendall(head)
    assert is_well(hasty)
    for connection in held:
        assert until_closed(connection).startswith(b"HTTP/1.1 408 "), "the body must come in time"
        connection.close()


def test_large_bodies_that_never_end_give_way_to_a_small_request(hasty: ServerProcess) -> None:
    head = b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    held = [connect(hasty.http_port) for _ in range(4)]
    for connection in held:
        connection.sendall(head + bytes(3_900_000))
    assert is_well(hasty)
    statuses = {re.search(rb"HTTP/1.1 (\d+)", until_closed(connection)).group(1) for connection in held}  # type: ignore[union-attr]
    assert statuses <= {b"408", b"503"}
    for connection in held:
        connection.close()


def test_a_timeout_counts_from_the_first_byte(hasty: ServerProcess) -> None:
    body = json.dumps(request(np.array([1]), "trips", "INT64")).encode()
    with connect(hasty.http_port) as connection:
        started = time.monotonic()
        connection.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        try:
            for byte in body:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert b"HTTP/1.1 408 " in until_closed(connection)
        assert time.monotonic() - started < 20


def test_requests_behind_a_long_one_are_not_lost(server: ServerProcess) -> None:
    long = json.dumps(request(np.array([300]), "trips", "INT64")).encode()
    short = json.dumps(GOOD).encode()
    head = "POST /v2/models/{}/infer HTTP/1.1\r\nHost: x\r\nX-Padding: {}\r\nContent-Length: {}\r\n\r\n"
    with connect(server.http_port) as connection:
        connection.sendall(head.format("slow", "", len(long)).encode() + long)
        for _ in range(40):  # far more than one head may have
            connection.sendall(head.format("fixed", "a" * 4000, len(short)).encode() + short)
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert until_closed(connection).count(b"HTTP/1.1 200 ") == 42


def test_an_upload_survives_a_reload_of_its_model(server: ServerProcess, rest: Rest) -> None:
    body = json.dumps(GOOD).encode()
    with connect(server.http_port) as connection:
        connection.sendall(
            b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        assert rest.ask("POST", "/v2/repository/models/fixed/load", {}).status == 200
        connection.sendall(body)
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_a_page_of_another_site_unloads_nothing(rest: Rest) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert rest.ask("POST", "/v2/repository/models/fixed/unload", b"", headers).status in (403, 415)
    assert rest.infer("fixed", GOOD).status == 200


@pytest.mark.parametrize("sent", [b"", frame(DATA, 0, 1, MESSAGE + bytes(900))], ids=["headers", "most of a message"])
def test_a_call_that_never_ends_is_ended(hasty: ServerProcess, sent: bytes) -> None:
    with connect(hasty.grpc_port) as connection:
        connection.sendall(PREFACE + grpc_headers(1) + sent)
        received = b""
        while not any(kind == HEADERS and number == 1 for kind, number, _ in frames(received)):
            received += connection.recv(65536)
        answer = next(payload for kind, number, payload in frames(received) if kind == HEADERS and number == 1)
        assert b"did%20not" not in answer
        assert b"the message did not arrive within" in _text(answer)
    assert is_well(hasty)


def _text(block: bytes) -> bytes:
    hpack = pytest.importorskip("hpack", reason="h2 is not installed")
    headers = hpack.Decoder().decode(block, raw=True)
    return next(value for name, value in headers if name == b"grpc-message")


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (frame(HEADERS, 0, 1, FIELD * 100), frame(CONTINUATION, 0, 1, FIELD * 3000)),
        (b"", frame(PING, 0, 0, bytes(8)) * 1000),
        (b"", frame(4, 0, 0, b"") * 1000),
        (grpc_headers(1), frame(DATA, 0, 1, b"") * 1000),
    ],
    ids=["header blocks", "pings", "settings", "empty data"],
)  # fmt: skip
def test_floods_close_the_connection(hasty: ServerProcess, opening: bytes, flood: bytes) -> None:
    with connect(hasty.grpc_port) as connection:
        connection.sendall(PREFACE + opening)
        floods(connection, flood, 200)
        until_closed(connection)  # or it takes too long
    assert is_well(hasty)


def test_no_byte_of_a_message_without_a_token_is_accepted(models: dict[str, Path], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct-horse-battery", encoding="ascii")
    with running(jr_onnx(models["fixed"], "--token-file", token)) as server, connect(server.grpc_port) as connection:
        connection.sendall(PREFACE + grpc_headers(1))
        received = b""
        while not any(kind == HEADERS for kind, _, _ in frames(received)):
            received += connection.recv(65536)
        assert b"token" in _text(next(payload for kind, _, payload in frames(received) if kind == HEADERS))


def test_deadlines_cancelled_calls_and_large_messages_over_grpc(server: ServerProcess) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    infer = "/inference.GRPCInferenceService/ModelInfer"
    trips = np.array([2000], np.int64).tobytes()
    tensor = b"\x0a\x05trips\x12\x05INT64\x1a\x01\x01"
    long = b"\x0a\x04slow" + b"\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\x08" + trips
    size = 3 << 20
    large = b"\x0a\x05fixed\x3a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    with grpc.insecure_channel(server.grpc) as channel:
        ask = channel.unary_unary(infer)
        with pytest.raises(grpc.RpcError) as late:
            ask(long, timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        given_up = ask.future(long, timeout=30)
        time.sleep(0.2)
        assert given_up.cancel()
        with pytest.raises(grpc.RpcError) as refused:
            ask(large + bytes(size), timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no inputs" in refused.value.details() or "0 inputs" in refused.value.details()
        assert channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10) == b"\x08\x01"
    assert is_well(server)


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"Host: x\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\n",
        b"Host: x\r\nAuthorization: Bearer a\r\nauthorization: Bearer b\r\n",
        b"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"Host: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\nContent-Encoding: identity\r\n",
        b"Host: x\r\nContent-Length: +5\r\n",
        b"Host: x\r\nA: b\r\n c\r\n",
        b"Host: x\nA: b\r\n",
    ],
)
def test_a_head_that_others_may_read_in_another_way_is_refused(server: ServerProcess, headers: bytes) -> None:
    behind = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(server.http_port) as connection:
        connection.sendall(b"POST /v2/repository/index HTTP/1.1\r\n" + headers + b"\r\n0\r\n\r\n" + behind)
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(re.findall(rb"HTTP/1.1 \d+", received)) == 1, "what follows such a head is not a request"


def test_streams_of_messages_that_never_end_give_way(hasty: ServerProcess) -> None:
    stream = "/inference.GRPCInferenceService/ModelStreamInfer"
    held = [connect(hasty.grpc_port) for _ in range(2)]
    for connection in held:
        connection.sendall(PREFACE + grpc_headers(1, stream))
        part = b"\0" + struct.pack(">I", 3_900_000) + bytes(3_800_000)
        time.sleep(0.05)  # until the windows are open
        _send_in_windows(connection, part)
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    size = 3 << 20
    large = b"\x0a\x05fixed\x3a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    with grpc.insecure_channel(hasty.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(large + bytes(size), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "it was read, not turned away"
    for connection in held:
        connection.close()


def _send_in_windows(connection: socket.socket, data: bytes) -> None:
    """Send DATA frames as far as the server lets, and read what it says meanwhile."""
    window, received = 1 << 20, b""
    connection.settimeout(5)
    while data:
        while window < 16384:
            received += connection.recv(65536)
            while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
                size = int.from_bytes(received[:3], "big")
                if received[3] == 8 and received[5:9] == b"\0\0\0\1":
                    window += int.from_bytes(received[9:13], "big")
                received = received[9 + size :]
        connection.sendall(frame(DATA, 0, 1, data[:16384]))
        window -= min(len(data), 16384)
        data = data[16384:]


def test_requests_that_a_model_cannot_compute_do_not_fill_the_log(server: ServerProcess, rest: Rest) -> None:
    before = len(server.log)
    for _ in range(30):
        answer = rest.infer("lookup", request(np.array([[99]]), "ids", "INT64"))
        assert (answer.status, "out of data bounds" in answer.error) == (400, True)
    assert "\x1b" not in server.log[before:]
    assert "onnxruntime" not in server.log[before:], "its own lines are neither escaped nor limited"
