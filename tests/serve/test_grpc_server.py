"""Which calls the server takes in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")
from jr_onnx.serve import grpc_server
from jr_onnx.serve.connections import ConnectionTable
from jr_onnx.serve.gate import ByteBudget, Gate
from jr_onnx.serve.grpc_method import Method
from jr_onnx.serve.grpc_server import GrpcServer
from jr_onnx.serve.options import Address, Limits


class Connection:
    """Keeps the status of every call."""

    def __init__(self) -> None:
        self.calls: dict[int, Any] = {}
        self.statuses: dict[int, bytes] = {}

    def begin(self, number: int, call: Any) -> None:
        self.calls[number] = call

    def answer(self, number: int, headers: Any, data: Any, trailers: Any) -> None:
        del data
        self.statuses[number] = dict([*(headers or []), *(trailers or [])])[b"grpc-status"]
        self.calls.pop(number).sent()

    def mark_used(self) -> None: ...


def _headers(path: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"), (b":path", path), (b"content-type", b"application/grpc"), (b"grpc-timeout", b"9999999H"),
    ]  # fmt: skip


async def _nothing(requests: Any, call: Any) -> Any:
    del call
    async for request in requests:
        yield request


async def _waits(request: Any, call: Any) -> bytes:
    del request, call
    await asyncio.sleep(60)
    return b""


@pytest.mark.parametrize("path", [b"/unary", b"/stream"])
def test_a_call_that_finds_all_places_taken_by_accepted_ones_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(grpc_server, "CALLS", 3)

    async def scenario() -> None:
        methods = {
            "/unary": Method(bytes, _waits), "/stream": Method(bytes, _nothing, streams=True),
            "/open": Method(bytes, _waits, is_open=True),
        }  # fmt: skip
        budget = ByteBudget(1 << 20)
        server = GrpcServer(Address(), methods, Gate(None), Limits(), budget, ConnectionTable(most=8))
        server.loop = asyncio.get_running_loop()
        connection: Any = Connection()
        for number in range(3):
            server._open(connection, number, _headers(b"/unary"))
            connection.calls[number].data(bytes(5))
            connection.calls[number].end()
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        server._open(connection, 3, _headers(path))
        assert connection.statuses == {3: b"14"}
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before
        server._open(connection, 4, _headers(b"/open"))
        assert 4 in connection.calls, "health checks get in"
        server._open(connection, 5, _headers(b"/unary"))
        assert connection.statuses == {3: b"14", 4: b"14"}, "one that is not complete gives way"
        for call in list(connection.calls.values()):
            call.lost()

    asyncio.run(scenario())
