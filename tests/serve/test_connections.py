"""Which connection is evicted while others are being set up, and what clients are told whose data is dropped."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")
from jr_onnx.serve.connections import ConnectionTable, Listener, LoopTime
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.http1 import Http1Connection
from jr_onnx.serve.http2 import Http2Connection
from jr_onnx.serve.options import Address
from jr_onnx.serve.rest import failure
from tests.serve.test_gate import Held
from tools.checks.serving.barrages import frame, grpc_headers


async def _shake_hands(table: ConnectionTable) -> asyncio.Task[None]:
    task = asyncio.create_task(asyncio.sleep(60))
    table.set_up(task)
    await asyncio.sleep(0)
    return task


def test_a_tls_handshake_that_stalls_is_evicted() -> None:
    async def scenario() -> None:
        table = ConnectionTable(most=2)
        first, second = await _shake_hands(table), await _shake_hands(table)
        assert table.make_room()
        await asyncio.wait([first, second], timeout=0.2)
        assert first.cancelled(), "the oldest one"
        assert not second.done()
        third = await _shake_hands(table)
        assert table.make_room()
        await asyncio.wait([second], timeout=0.2)
        assert second.cancelled()
        third.cancel()

    asyncio.run(scenario())


def test_a_new_connection_stays_if_an_idle_one_can_be_evicted() -> None:
    async def scenario() -> None:
        table = ConnectionTable(most=2)
        quiet = Held(0.0)
        table.add(quiet)
        table.mark_used(quiet)
        newcomer = await _shake_hands(table)
        assert table.make_room()
        await asyncio.sleep(0)
        assert (quiet.aborted, newcomer.cancelled()) == (True, False)
        newcomer.cancel()

    asyncio.run(scenario())


class Receiver(asyncio.Protocol):
    """A connection that answers the first bytes that it receives, and closes."""

    def __init__(self, table: ConnectionTable) -> None:
        self._table = table
        self.quiet_since = asyncio.get_running_loop().time()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._table.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._table.remove(self)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
        self._transport.close()

    def is_expendable(self) -> bool:
        return True

    def sweep(self, now: float) -> None:
        del now

    def drain(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def test_requests_on_connections_that_wait_to_be_accepted_are_answered_after_the_listener_is_closed() -> None:
    """The system has set such connections up already: their clients may have sent requests, which it would reset."""

    async def scenario() -> list[bytes]:
        table = ConnectionTable(most=128)
        listener = Listener(Address(), 0, "HTTP", "http/1.1", lambda: Receiver(table), table)
        listener.open()
        clients = [socket.create_connection(("127.0.0.1", listener.port), timeout=5) for _ in range(50)]
        for client in clients[:40]:
            client.sendall(b"asked")
        listener.close()  # without a turn of the event loop in between
        draining = asyncio.create_task(table.drain(5.0))
        await asyncio.sleep(0.05)
        for client in clients[40:]:
            client.sendall(b"late")
        await draining
        answers = [client.recv(10) for client in clients]
        for client in clients:
            client.close()
        return answers

    assert asyncio.run(scenario()) == [b"asked"] * 40 + [b"late"] * 10


def test_a_drain_ends_new_connections_without_a_request_soon() -> None:
    async def scenario() -> float:
        table = ConnectionTable(most=8)
        listener = Listener(Address(), 0, "HTTP", "http/1.1", lambda: Receiver(table), table)
        listener.open()
        client = socket.create_connection(("127.0.0.1", listener.port), timeout=5)
        listener.close()
        started = asyncio.get_running_loop().time()
        await table.drain(30.0)
        client.close()
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(scenario()) < 10


def test_a_connection_that_is_evicted_before_it_is_set_up_is_closed() -> None:
    async def scenario() -> bytes:
        table = ConnectionTable(most=2)
        listener = Listener(Address(), 0, "HTTP", "http/1.1", lambda: Receiver(table), table)
        listener.open()
        clients = [socket.create_connection(("127.0.0.1", listener.port), timeout=5) for _ in range(3)]
        listener.close()
        await asyncio.sleep(0.05)
        answer = clients[0].recv(10)
        await table.drain(0.0)
        for client in clients:
            client.close()
        return answer

    assert asyncio.run(scenario()) == b""


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def set_write_buffer_limits(self, **limits: int) -> None:
        del limits

    def pause_reading(self) -> None: ...


class Application:
    """Refuses; nothing is ever complete."""

    timeout_s = 5.0
    is_draining = False

    def admit(self, request: Any) -> int:
        del request
        return 1 << 20

    failure = staticmethod(failure)


class Call:
    """A call whose message is still coming, or is being answered."""

    def __init__(self, *, accepted: bool) -> None:
        self.accepted = accepted
        self.gave_way = False

    def is_accepted(self) -> bool:
        return self.accepted

    def give_way(self) -> None:
        self.gave_way = True


DATA = bytes(8 << 10)  # more than what is always admitted
TOTAL = 1 << 20
HEAD = b"POST /v2/models/a/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
GOAWAY = 7


def _squeeze(table: ConnectionTable, budget: ByteBudget, connection: asyncio.Protocol, *, is_full: bool) -> None:
    """Receive data that waits for its turn, and let others fill the budget before or after that."""
    table.turns.add(LoopTime(), lambda: None)
    if is_full:
        budget.settled().grow(TOTAL - budget.used)
        connection.data_received(DATA)
    else:
        connection.data_received(DATA)
        budget.settled().grow(TOTAL - budget.used)
        budget.settled().grow(len(DATA))
    assert budget.used <= TOTAL


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"ab"])
def test_a_client_whose_data_is_dropped_is_told_so(begun: bytes, is_full: bool) -> None:
    async def scenario() -> Transport:
        budget, table, transport = ByteBudget(TOTAL), ConnectionTable(most=8), Transport()
        application: Any = Application()
        connection = Http1Connection(application, table, budget)
        connection.connection_made(transport)
        connection.data_received(begun)
        _squeeze(table, budget, connection, is_full=is_full)
        return transport

    transport = asyncio.run(scenario())
    assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert transport.ended == "closed", "an aborted connection would lose what was written"


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("accepted", [None, False, True])
def test_a_client_of_http2_is_told_so_as_well(accepted: bool | None, is_full: bool) -> None:
    """Of calls that were never looked at, GOAWAY says so; one that has begun is refused; one being answered stays."""

    async def scenario() -> tuple[Transport, Call]:
        budget, table, transport = ByteBudget(TOTAL), ConnectionTable(most=8), Transport()
        call = Call(accepted=accepted is True)
        connection = Http2Connection(lambda one, number, _: one.begin(number, call), table, budget, 5.0)
        connection.connection_made(transport)
        connection.data_received(PREFACE + (b"" if accepted is None else grpc_headers(1)))
        transport.written = b""
        _squeeze(table, budget, connection, is_full=is_full)
        return transport, call

    transport, call = asyncio.run(scenario())
    seen = 0 if accepted is None else 1
    assert transport.written == frame(GOAWAY, 0, 0, struct.pack(">II", seen, 0))
    assert call.gave_way == (accepted is False)
    assert transport.ended == ("closed" if accepted is None else "")
