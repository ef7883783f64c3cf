"""Whatever comes in, over REST or gRPC: an answer that blames the right side, no crash and no hang."""

from __future__ import annotations

import contextlib
import json
import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.support import GOOD, LENGTH, ROWS, Rest
from tools.checks.serving.barrages import frame, grpc_headers
from tools.checks.serving.processes import ServerProcess

FUZZ = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
SIZES = st.lists(st.integers(-2, 40) | st.sampled_from([2**31, 2**63, 2**64, -(2**63)]), max_size=4)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", ""]) | ANY_JSON,
        "datatype": st.sampled_from(["FP32", "FP64", "BYTES", "INT8"]) | ANY_JSON,
        "shape": st.just([2, 16]) | SIZES | ANY_JSON,
        "data": st.just(ROWS.ravel().tolist()) | st.lists(st.floats(allow_nan=False, width=32), max_size=40) | ANY_JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-5, 200) | ANY_JSON})
        | ANY_JSON,
    },
)
BODY = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | ANY_JSON},
    optional={
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "q"])}), max_size=2) | ANY_JSON,
        "id": ANY_JSON,
        "parameters": ANY_JSON,
    },
)


def check(answer: Any) -> None:
    assert answer.status in (200, 400, 413), (answer.status, answer.body)
    if answer.status != 200:
        assert answer.error


@FUZZ
@given(body=BODY)
def test_requests_of_any_content(rest: Rest, body: dict[str, Any]) -> None:
    check(rest.infer("fixed", json.dumps(body).encode()))


@FUZZ
@given(body=BODY, tail=st.binary(max_size=200), length=st.none() | st.integers(-1, 400))
def test_binary_requests_of_any_content(rest: Rest, body: dict[str, Any], tail: bytes, length: int | None) -> None:
    head = json.dumps(body).encode()
    check(rest.infer("fixed", head + tail, {LENGTH: str(len(head) if length is None else length)}))


@FUZZ
@given(data=st.binary(max_size=300), where=st.integers(0, 400), good=st.booleans())
def test_bytes_of_any_kind(rest: Rest, data: bytes, where: int, good: bool) -> None:
    body = json.dumps(GOOD).encode()
    check(rest.infer("fixed", body[:where] + data + body[where + len(data) :] if good else data))


PATHS = ["v2", "models", "fixed", "versions", "1", "infer", "ready", "repository", "index", "health", "..", "%00", ""]


@FUZZ
@given(parts=st.lists(st.sampled_from(PATHS), max_size=7), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_paths_of_any_kind(rest: Rest, parts: list[str], method: str) -> None:
    assert rest.ask(method, "/" + "/".join(parts)).status in (200, 400, 404, 405)


@settings(FUZZ, max_examples=100)
@given(data=st.binary(min_size=1, max_size=400))
def test_connections_of_any_kind(server: ServerProcess, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = connection.recv(12)
        assert received == b"" or received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 2", b"HTTP/1.0 ")), received


KINDS = st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 9, 42])
FRAMES = st.lists(st.tuples(KINDS, st.integers(0, 255), st.integers(0, 5), st.binary(max_size=60)), max_size=12)


@settings(FUZZ, max_examples=150)
@given(sent=FRAMES, calls=st.integers(0, 3), tail=st.binary(max_size=30))
def test_http2_frames_of_any_kind(
    server: ServerProcess, rest: Rest, sent: list[tuple[int, int, int, bytes]], calls: int, tail: bytes
) -> None:
    opened = b"".join(grpc_headers(2 * number + 1) for number in range(calls))
    data = b"".join(frame(*one) for one in sent)
    with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + opened + data + tail)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    assert rest.get("/v2/health/live").status == 200


@settings(FUZZ, max_examples=150)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    trailers=st.lists(st.sampled_from([b"a: b", b"x:", b"authorization: Bearer y"]), max_size=3),
    cuts=st.lists(st.integers(0, 600), max_size=6),
)
def test_chunked_bodies_cut_anywhere(
    server: ServerProcess, chunks: list[bytes], trailers: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
    request = b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    request += b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    request += b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        edges = [0, *sorted(min(cut, len(request)) for cut in cuts), len(request)]
        for start, end in pairwise(edges):
            connection.sendall(request[start:end])
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert b"HTTP/1.1 200 " in received, "the next request is answered, whatever was before it"


def test_grpc_messages_of_any_kind(server: ServerProcess, rest: Rest) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    methods = ("ModelInfer", "ModelMetadata", "ModelReady", "RepositoryModelLoad", "ServerMetadata", "Nothing")
    # Fields 1 (model_name) and 5 (inputs) of a ModelInferRequest, so that some messages reach the tensors.
    prefix = st.sampled_from([b"", b"\x0a\x05fixed", b"\x0a\x05fixed\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x02\x10"])
    allowed = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}

    with grpc.insecure_channel(server.grpc) as channel:

        @settings(FUZZ, max_examples=400)
        @given(method=st.sampled_from(methods), head=prefix, tail=st.binary(max_size=100))
        def ask(method: str, head: bytes, tail: bytes) -> None:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}").future(head + tail, timeout=10)
            assert call.code().name in allowed, call.details()

        ask()
    assert rest.infer("fixed", GOOD).status == 200
