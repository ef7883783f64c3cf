"""One gRPC call on an HTTP/2 stream: its messages, timeouts, bytes in the budget, and status."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jr_onnx.errors import JrError
from jr_onnx.serve.extensions.compression import ENCODINGS, IDENTITY, expanded
from jr_onnx.serve.faults import (
    BadRequestError,
    OverloadedError,
    SlowBodyError,
    TimedOutError,
    TooLargeError,
    UnimplementedError,
    quoted,
)
from jr_onnx.serve.gate import Holding
from jr_onnx.serve.grpc_method import Method
from jr_onnx.serve.grpc_wire import HEADERS, OK, PREFIX_BYTES, frame, prefix, seconds, trailers

if TYPE_CHECKING:
    from jr_onnx.serve.grpc_server import GrpcServer
    from jr_onnx.serve.http2 import Headers, Http2Connection


@dataclass(slots=True)
class _Message:
    """A request message as it came, behind its prefix, and what it takes of the budget."""

    data: bytearray
    is_compressed: bool
    holding: Holding


class GrpcCall:
    """A call, which its method is given beside the message.

    Args:
        server: The server.
        connection: The connection of the call.
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
        self._is_compressed = False  # the message that comes
        self._encoding = ""  # of messages that say that they are compressed
        self._whole = False
        self._streams = False
        self._messages: deque[_Message] = deque()  # of a stream, not yet answered
        self._arrived = asyncio.Event()
        self._owed = 0  # bytes of a stream for which the client has no new credit yet
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._write_by = 0.0  # when the client must have read the pending answer; 0 where there is none
        self._begun = False
        self._is_over = False
        self._broken: JrError | None = None  # why a stream ends after the messages that have come
        self._idle = False  # a stream that waits for a message
        self._taken = asyncio.Event()
        self.started = server.loop.time()
        self._holding = server.budget.arriving(self._give_way)
        self._answering = server.budget.settled()  # of the message that is being answered
        self._outgoing = server.budget.leaving()

    def begin(self, method: Method, timeout: bytes | None, encoding: bytes = b"") -> None:
        """Wait for the message.

        Args:
            method: What is called.
            timeout: The value of the header `grpc-timeout`.
            encoding: The value of the header `grpc-encoding`.

        Raises:
            BadRequestError: The timeout is malformed.
            UnimplementedError: This server does not know the encoding.
        """
        self._encoding = encoding.decode("latin-1")
        if self._encoding not in (*IDENTITY, *ENCODINGS):
            raise UnimplementedError(
                f"messages are encoded as {quoted(self._encoding)}, expected {', '.join(ENCODINGS)} or identity"
            )
        self._method = method
        loop = self._server.loop
        self._deadline = self.started + self._server.limits.timeout_s
        if timeout is not None:
            patience = seconds(timeout)
            self._timer = loop.call_later(patience, self._expire, patience)
        if method.streams:
            self._streams = True
            self._run(self._stream(method))

    def seconds_left(self) -> float:
        """Return how long the answer may still take."""
        return max(0.0, self._deadline - self._server.loop.time())

    def hold(self, size: int) -> None:
        """Hold more bytes for the parsed request.

        Raises:
            OverloadedError: The budget is exhausted.
        """
        self._answering.grow(size)

    def take_holding(self) -> Holding:
        """Return the request's bytes in the budget, which the caller releases when it lets go of them."""
        holding, self._answering = self._answering, self._server.budget.settled()
        return holding

    # what the connection calls

    def data(self, data: bytes) -> bool:
        """Receive a piece of the request, and return whether the client may send as much again."""
        if self._method is None or self._whole or self._is_over or self._broken is not None:
            return True
        try:
            self._holding.grow(len(data))
            self._buffer += data
            self._cut(self._method)
        except JrError as error:
            self._break_off(error)
        if len(self._messages) < self._server.limits.queue:
            return True
        self._owed += len(data)
        return False

    def _cut(self, method: Method) -> None:
        """Look at the prefix of a message, and cut whole messages of a stream off, as many as may wait."""
        while len(self._buffer) >= PREFIX_BYTES and len(self._messages) < self._server.limits.queue:
            if self._expected < 0:
                self._is_compressed, self._expected = prefix(self._buffer)
                if self._is_compressed and self._encoding in IDENTITY:
                    raise BadRequestError("the message is compressed, but no header grpc-encoding says how")
                if self._expected > method.largest:
                    raise TooLargeError(f"the message has {self._expected} bytes, expected at most {method.largest}")
            end = PREFIX_BYTES + self._expected
            if not self._streams:
                if len(self._buffer) > end:
                    raise BadRequestError("there is more than one message, expected one")
                return
            if len(self._buffer) < end:
                return
            self._messages.append(self._cut_off(end))
            self._server.accepted += 1
            self._arrived.set()

    def _cut_off(self, end: int) -> _Message:
        """Take a whole message off the buffer; its bytes are counted by themselves from now on."""
        holding = self._server.budget.settled()
        self._holding.shrink(end)
        holding.grow(end)  # there is room: it was given back just now
        data = self._buffer
        if len(data) < 2 * end:  # copy the shorter part
            self._buffer = data[end:]
            del data[end:]
        else:
            data = data[:end]
            del self._buffer[:end]
        self._expected = -1
        return _Message(data, self._is_compressed, holding)

    def end(self) -> None:
        """The request is complete: start to answer."""
        method = self._method
        if method is None or self._is_over:
            return
        self._whole = True
        if self._streams:
            self._arrived.set()
        elif self._expected < 0 or len(self._buffer) != PREFIX_BYTES + self._expected:
            self.fail(BadRequestError(f"the message ended after {len(self._buffer)} bytes"))
        else:
            self._holding.settle()
            self._server.accepted += 1
            self._run(self._unary(method))

    def lost(self) -> None:
        """The client has cancelled the call or disconnected."""
        self._stop_timer()
        self._outgoing.release()
        self._server.remove(self)
        self._is_over = True
        if self._task is None:
            self._holding.release()
        self._cancel()
        self._buffer = bytearray()

    def taken(self) -> None:
        """A piece of the answer has been sent."""
        self._write_by = 0.0
        self._outgoing.release()
        self._taken.set()

    def sent(self) -> None:
        """The answer has been sent."""
        self._stop_timer()
        self._outgoing.release()
        self._server.remove(self)
        if self._task is None:
            self._holding.release()

    def sweep(self, now: float) -> None:
        """Time out a message that does not arrive, and an answer that is not read."""
        if self._write_by:
            if now > self._write_by:
                self._connection.reset(self._number)
                self.lost()
        elif not self._whole and now > self._deadline:
            limit = self._server.limits.timeout_s
            if not self._streams:
                self.fail(SlowBodyError(f"the message did not arrive within {limit:g} s"))
            elif self._idle:
                self._turn_away(SlowBodyError(f"no message came within {limit:g} s"))

    def is_accepted(self) -> bool:
        """Whether a request is complete, and its answer pending."""
        return self._task is not None and not self._idle

    def give_way(self) -> None:
        """Make room for another call; this one has no pending answer."""
        self._turn_away(OverloadedError("others need the place of this call", hint="Ask again later"))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Mark a stream as idle, without a pending answer, for as long as this lasts."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False

    # answering

    async def _unary(self, method: Method) -> None:
        message = _Message(self._buffer, self._is_compressed, self._holding)
        self._buffer, self._holding = bytearray(), self._server.budget.settled()
        request = [await self._request(method, message)]
        # The method is given the only reference, so that it can let go of the request before its answer is ready.
        answer: Any = method.answer
        self._send(_framed(await answer(request.pop(), self)), OK)

    async def _request(self, method: Method, message: _Message) -> Any:
        """Return the request of a message, which is being answered from now on."""
        self._answering = message.holding
        data, message.data = message.data, bytearray()
        view = memoryview(data)[PREFIX_BYTES:]
        if message.is_compressed:
            view = memoryview(await expanded(view, method.largest, message.holding.grow, self.seconds_left()))
            message.holding.shrink(len(data))
        return method.request(view)

    async def _stream(self, method: Method) -> None:
        stream: Any = method.answer
        async for answer in stream(self._requests(method), self):
            self._taken.clear()
            self._send(_framed(answer))
            await self._taken.wait()
        self._write(None, OK)

    async def _requests(self, method: Method) -> AsyncIterator[Any]:
        while True:
            self._deadline = self._server.loop.time() + self._server.limits.timeout_s
            if not self._messages:
                if self._broken is not None:
                    raise self._broken
                if self._whole:
                    if self._buffer:
                        raise BadRequestError(f"the message ended after {len(self._buffer)} bytes")
                    return
                self._arrived.clear()
                with self.resting():
                    await self._arrived.wait()
                continue
            request = [await self._request(method, self._messages.popleft())]
            self._cut(method)
            self._allow()
            try:
                yield request.pop()
            finally:
                self._answering.release()
                self._server.answered += 1

    def _allow(self) -> None:
        """Give the client the credit that was held back while too many messages waited."""
        if self._owed and len(self._messages) < self._server.limits.queue:
            owed, self._owed = self._owed, 0
            self._connection.allow(self._number, owed)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._method is not None and not self._method.is_open:
            self._connection.mark_used()
        self._task = self._server.loop.create_task(self._guarded(work))
        # Not in the task itself: one that is cancelled before its first step never runs.
        self._task.add_done_callback(lambda _: self._done(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._task = None
            self.fail(error)

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        """Release everything once the task has ended."""
        work.close()
        self._task = None
        self._buffer = bytearray()
        self._broken = None
        self._holding.release()
        self._answering.release()
        self._server.answered += len(self._messages) if self._streams else 1
        for message in self._messages:
            message.holding.release()
        self._messages.clear()

    def _break_off(self, error: JrError) -> None:
        """Receive nothing more; complete messages of a stream are answered before it ends."""
        if self._streams and self.is_accepted():
            self._broken, self._buffer = error, bytearray()
            self._holding.release()
        else:
            self._turn_away(error)

    def _turn_away(self, error: Exception) -> None:
        """Stop answering, and send an error."""
        self._cancel()
        self.fail(error)

    def _send(self, data: bytes, trailers: Headers | None = None) -> None:
        self._outgoing.grow(len(data))
        self._write(data, trailers)

    def _write(self, data: bytes | None, trailers: Headers | None) -> None:
        self._write_by = self._server.loop.time() + self._server.limits.timeout_s
        headers, self._begun = None if self._begun else HEADERS, True
        self._is_over = trailers is not None
        self._connection.answer(self._number, headers, data, trailers)

    def fail(self, error: Exception) -> None:
        """Answer with an error's status."""
        if self._is_over:
            return
        self._buffer = bytearray()
        if self._task is None:
            self._holding.release()
        if self._begun:
            self._write(None, trailers(error))
        else:
            self._begun = True  # an answer of nothing but trailers, in one frame
            self._write(None, [*HEADERS, *trailers(error)])

    def _expire(self, seconds: float) -> None:
        self._timer = None
        self._turn_away(TimedOutError(f"the client's deadline of {seconds:g} s has passed"))

    def _give_way(self) -> None:
        self._break_off(OverloadedError("others need the memory that this request holds", hint="Ask again later"))

    def _cancel(self) -> None:
        """Cancel the task, which releases the bytes of the request at its end."""
        if self._task is not None:
            self._task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _framed(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else frame(answer)
