"""One gRPC call on an HTTP/2 stream: its messages, its clock, its bytes in the budget, its status."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from google.protobuf.message import DecodeError

from jr_onnx.errors import JrError
from jr_onnx.serve.faults import (
    GRPC_CODES,
    BadRequestError,
    EncodingError,
    OverloadedError,
    SlowBodyError,
    TimedOutError,
    TooLargeError,
    reported,
)
from jr_onnx.serve.gate import Holding
from jr_onnx.serve.workers import LARGE_BYTES, copying

if TYPE_CHECKING:
    from jr_onnx.serve.grpc_server import GrpcServer
    from jr_onnx.serve.http2 import Headers, Http2Connection

SMALL_MESSAGE: Final = 64 * 1024
"""Largest request message of a method that takes no tensors."""

STATUS: Final = {
    "OK": 0,
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
"""Numbers of the statuses that this server gives (grpc's `statuscodes.md`)."""

_PREFIX_BYTES: Final = 5
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_HEADERS: Final = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity")]
_OK: Final = [(b"grpc-status", b"0")]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a gRPC service.

    Attributes:
        request: Makes a message of a view of its bytes, or raises `BadRequestError`; see `parser`. It runs on the event
            loop: a method that takes long messages lets this return the view, and reads it in a thread.
        answer: The method. Takes a message and the call, and returns a message. With `streams` it is an asynchronous
            generator of messages, and takes an iterator of messages and the call.
        is_open: It needs no token.
        largest: Largest message in bytes.
        streams: Messages go to and fro as long as both sides like.
    """

    request: Callable[[memoryview], Any]
    answer: Callable[[Any, Call], Any]
    is_open: bool = False
    largest: int = SMALL_MESSAGE
    streams: bool = False


class Call:
    """A call; what a method is given beside its message.

    Args:
        server: Who is asked.
        connection: Where the call came from.
        number: Number of its stream.

    Attributes:
        started: When its first byte came, by the event loop's clock.
    """

    def __init__(self, server: GrpcServer, connection: Http2Connection, number: int) -> None:
        self._server = server
        self._connection = connection
        self._number = number
        self._method: Method | None = None
        self._buffer = bytearray()
        self._expected = -1
        self._whole = False
        self._messages: asyncio.Queue[bytearray | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._write_by = 0.0  # when the client must have read what waits for it; 0 where nothing does
        self._begun = False
        self._is_over = False
        self._idle = False  # a stream that waits for a message
        self._taken = asyncio.Event()
        self.started = server.loop.time()
        self._holding = server.budget.arriving(self._give_way)
        self._outgoing = server.budget.settled()

    def begin(self, method: Method, timeout: bytes | None) -> None:
        """Wait for the message; `timeout` is the value of the header `grpc-timeout`."""
        self._method = method
        loop = self._server.loop
        self._deadline = self.started + self._server.limits.timeout_s
        if timeout is not None:
            seconds = _seconds(timeout)
            self._timer = loop.call_later(seconds, self._expire, seconds)
        if method.streams:
            self._messages = asyncio.Queue()
            self._holding.settle()
            self._run(self._stream(method, self._messages))

    def seconds_left(self) -> float:
        """Return how long the answer may still take."""
        return max(0.0, self._deadline - self._server.loop.time())

    def hold(self, size: int) -> None:
        """Hold more bytes for what the request becomes.

        Raises:
            OverloadedError: There are not so many left.
        """
        self._holding.grow(size)

    def take_holding(self) -> Holding:
        """Return the request's bytes in the budget, which the caller releases when it lets go of them."""
        holding, self._holding = self._holding, self._server.budget.settled()
        return holding

    # what the connection calls

    def data(self, data: bytes) -> None:
        """Take a piece of the request."""
        if self._method is None or self._whole or self._is_over:
            return
        try:
            self._holding.grow(len(data))
            self._buffer += data
            self._cut(self._method)
        except JrError as error:
            self.fail(error)

    def _cut(self, method: Method) -> None:
        """Look at the prefix of a message, and hand out whole messages of a stream."""
        while len(self._buffer) >= _PREFIX_BYTES:
            if self._expected < 0:
                compressed, self._expected = struct.unpack_from(">BI", self._buffer)
                if compressed:
                    raise EncodingError("the message is compressed, expected it plain")
                if self._expected > method.largest:
                    raise TooLargeError(f"the message has {self._expected} bytes, expected at most {method.largest}")
            end = _PREFIX_BYTES + self._expected
            if self._messages is None:
                if len(self._buffer) > end:
                    raise BadRequestError("there is more than one message, expected one")
                return
            if len(self._buffer) < end:
                return
            if self._messages.qsize() >= self._server.limits.queue:
                raise OverloadedError(f"{self._messages.qsize()} messages of this stream are waiting already")
            self._messages.put_nowait(self._buffer[:end])
            del self._buffer[:end]
            self._expected = -1

    def end(self) -> None:
        """The request is whole: start to answer."""
        method = self._method
        if method is None or self._is_over:
            return
        self._whole = True
        if self._messages is not None:
            self._messages.put_nowait(None)
            return
        if self._expected < 0 or len(self._buffer) != _PREFIX_BYTES + self._expected:
            self.fail(BadRequestError(f"the message ended after {len(self._buffer)} bytes"))
            return
        self._holding.settle()
        self._run(self._unary(method))

    def lost(self) -> None:
        """The client has given up or gone."""
        self._stop_timer()
        self._outgoing.release()
        self._server.remove(self)
        self._is_over = True
        if self._task is None:
            self._holding.release()
        self._cancel()
        self._buffer = bytearray()

    def taken(self) -> None:
        """A piece of the answer is on its way."""
        self._write_by = 0.0
        self._outgoing.release()
        self._taken.set()

    def sent(self) -> None:
        """The answer is on its way."""
        self._stop_timer()
        self._outgoing.release()
        self._server.remove(self)
        if self._task is None:
            self._holding.release()

    def sweep(self, now: float) -> None:
        """Give up a message that does not arrive, and an answer that nobody reads."""
        if self._write_by:
            if now > self._write_by:
                self._connection.reset(self._number)
                self.lost()
        elif not self._whole and now > self._deadline:
            limit = self._server.limits.timeout_s
            if self._messages is None:
                self.fail(SlowBodyError(f"the message did not arrive within {limit:g} s"))
            elif self._messages.empty() and self._idle:
                self._cancel()
                self.fail(SlowBodyError(f"no message came within {limit:g} s"))

    def is_accepted(self) -> bool:
        """Whether the request is whole, and an answer is owed."""
        return self._task is not None

    # answering

    async def _unary(self, method: Method) -> None:
        buffer, self._buffer = self._buffer, bytearray()
        request = [method.request(memoryview(buffer)[_PREFIX_BYTES:])]
        del buffer
        # The method is given the only reference, so that it can let go of the request before its answer is ready.
        self._send(await self._framed(await method.answer(request.pop(), self)), _OK)

    async def _stream(self, method: Method, messages: asyncio.Queue[bytearray | None]) -> None:
        async for answer in method.answer(self._requests(method, messages), self):
            self._taken.clear()
            self._send(await self._framed(answer))
            await self._taken.wait()
        self._write(None, _OK)

    async def _requests(self, method: Method, messages: asyncio.Queue[bytearray | None]) -> AsyncIterator[Any]:
        while True:
            self._idle = True
            self._deadline = self._server.loop.time() + self._server.limits.timeout_s
            data = await messages.get()
            self._idle = False
            if data is None:
                return
            self._deadline = self._server.loop.time() + self._server.limits.timeout_s
            size = len(data)
            request = method.request(memoryview(data)[_PREFIX_BYTES:])
            del data
            yield request
            self._holding.shrink(size)

    async def _framed(self, answer: Any) -> bytes:
        size = answer.ByteSize()
        if size < LARGE_BYTES:
            return _frame(answer)
        return await copying(_frame, answer)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._server.accepted += 1
        if self._method is not None and not self._method.is_open:
            self._connection.prove()
        self._task = self._server.loop.create_task(self._guarded(work))
        self._task.add_done_callback(lambda _: self._end(work))

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        """Let go of everything; also after a task that was cancelled before it began."""
        work.close()
        self._task = None
        self._buffer = bytearray()
        self._holding.release()
        self._server.answered += 1

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            pass  # the client has given up, or its time is over; it has its status
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._task = None
            self.fail(error)

    def _send(self, data: bytes, trailers: Headers | None = None) -> None:
        self._outgoing.grow(len(data))
        self._write(data, trailers)

    def _write(self, data: bytes | None, trailers: Headers | None) -> None:
        self._write_by = self._server.loop.time() + self._server.limits.timeout_s
        headers, self._begun = None if self._begun else _HEADERS, True
        self._is_over = trailers is not None
        self._connection.answer(self._number, headers, data, trailers)

    def fail(self, error: Exception) -> None:
        """Answer with an error's status."""
        if self._is_over:
            return
        self._buffer = bytearray()
        if self._task is None:
            self._holding.release()
        known = reported(error, "grpc")
        status = STATUS[GRPC_CODES[known.http_status]]
        text = quote(str(known), safe=_PRINTABLE).encode()
        trailers: Headers = [(b"grpc-status", b"%d" % status), (b"grpc-message", text)]
        if self._begun:
            self._write(None, trailers)
        else:
            self._begun = True  # an answer of nothing but trailers, in one frame
            self._write(None, [*_HEADERS, *trailers])

    def _expire(self, seconds: float) -> None:
        self._timer = None
        self._cancel()
        self.fail(TimedOutError(f"the client's deadline of {seconds:g} s has passed"))

    def _give_way(self) -> None:
        self.fail(OverloadedError("others need the memory that this request holds", hint="Ask again later"))

    def _cancel(self) -> None:
        """Stop answering; the task releases what the request holds when it lets go of it."""
        if self._task is not None:
            self._task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def parser(kind: Any) -> Callable[[memoryview], Any]:
    """Return what makes a message of a protobuf class of its bytes, for `Method.request`."""

    def parse(data: memoryview) -> Any:
        try:
            return kind.FromString(bytes(data))
        except DecodeError:
            raise BadRequestError("the message cannot be parsed") from None

    return parse


def _frame(answer: Any) -> bytes:
    data: bytes = answer.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def _seconds(timeout: bytes) -> float:
    """Return the value of a `grpc-timeout` header.

    Raises:
        BadRequestError: It is none.
    """
    number, unit = timeout[:-1], _UNITS.get(timeout[-1:])
    if unit is None or not number.isdigit() or len(number) > 8:
        raise BadRequestError("the header grpc-timeout is expected to be a number and a unit")
    return int(number) * unit
