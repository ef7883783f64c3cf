"""HTTP/1.1 connections: the `httptools` parser, with every buffer counted here.

The parser is given a head up to its end, a body up to its announced end, and chunks in small pieces, so that it never
sees the request behind the one that is being answered: that one waits, counted like everything that has arrived. A
request is admitted after its head, before a byte of its body is kept. What goes out is handed to the transport only as
far as the client reads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

from jr_onnx.errors import JrError, require
from jr_onnx.serve.connections import AGE_SECONDS, HEAD_SECONDS, ConnectionTable, LoopTime
from jr_onnx.serve.faults import BadRequestError, OverloadedError, SlowBodyError
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.http1_framing import Framing
from jr_onnx.serve.http_messages import (
    Application,
    Request,
    Response,
    announced_length,
    check_head,
    check_size,
    response_head,
    target_path,
)

_httptools: Any = require("httptools", "serve")

KEEP_ALIVE_S: Final = 65.0
"""How long a connection may wait for its next request."""

_PIECE_BYTES: Final = 128 * 1024  # of an answer that is handed to the transport at a time
_TURN_S: Final = 0.0005  # that the parser takes before it is the turn of others
_DISCARD_BYTES: Final = 256 << 20  # of a body that was refused: most clients read no answer before they have sent it
_DISCARD_S: Final = 10.0
_CLOSING_S: Final = 10.0
_STALLED_S: Final = 2.0  # without reading its answer
_CLOSE_AFTER: Final = frozenset({400, 408, 413})
_GIVES_WAY: Final = "others need the memory that this request holds"


class Http1Connection(asyncio.Protocol):
    """One connection.

    Args:
        application: Answers requests.
        table: Where connections are counted.
        budget: Bytes of all requests together.
    """

    def __init__(self, application: Application, table: ConnectionTable, budget: ByteBudget) -> None:
        self._application = application
        self._table = table
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = _httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop_time = LoopTime()
        self._rest: deque[memoryview] = deque()  # received behind the request being answered, or not yet parsed
        self._resting = budget.arriving(self._drop_rest)
        self._going_on = False
        self._framing = Framing()
        self._url = b""
        self._is_whole = False
        self._refused = 0.0  # when the request was refused while its body was still coming
        self._discarded = 0
        self._outgoing = memoryview(b"")
        self._leaving = budget.leaving()
        self._paused = self._closes = False
        self._closing_since = self._write_by = 0.0
        self._since = self.quiet_since = self._loop.time()

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=1, low=0)  # paused means that something is not sent yet
        self._table.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        del exc
        self._table.remove(self)
        self._closing_since = self._closing_since or self._loop.time()
        self._rest.clear()
        self._resting.release()
        self._outgoing = memoryview(b"")
        self._leaving.release()
        self._parser = None  # a cycle: closed connections would wait for the garbage collector
        if self._task is not None:
            self._task.cancel()
        elif self._request is not None:
            self._request.holding.release()
            self._request = None

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has read everything that was sent."""
        self._paused = False
        if self._write_by:
            self._write()

    def data_received(self, data: bytes) -> None:
        """Process received data."""
        if self._closing_since:
            return
        self.quiet_since = self._loop.time()
        if not self._rest and not self._is_whole and not self._table.turns.are_waiting:
            done = self._take_in(memoryview(data))
            if done == len(data) or self._closing_since:
                return
            data = data[done:]
        self._rest.append(memoryview(data))
        self._transport.pause_reading()
        try:
            self._resting.grow(len(data))
        except OverloadedError:
            self._drop_rest()
            return
        self._go_on_soon()

    def _drop_rest(self) -> None:
        """Drop received data that was not parsed yet: the connection closes after an answer, the pending one if any."""
        self._rest.clear()
        self._resting.release()
        if self._task is None and not self._write_by:
            self._break(OverloadedError(_GIVES_WAY, hint="Ask again later"))
        self._closes = True

    def _go_on_soon(self) -> None:
        if self._rest and not self._going_on and not self._is_whole:
            self._going_on = True
            self._table.turns.add(self._loop_time, self._go_on)

    def _go_on(self) -> None:
        """Process data that has been waiting."""
        self._going_on = False
        if self._closing_since or self._is_whole or not self._rest:
            return
        data = self._rest.popleft()
        done = self._take_in(data)
        if self._closing_since:
            return
        if done < len(data):
            self._rest.appendleft(data[done:])
        self._resting.shrink(done)
        if self._rest:
            self._go_on_soon()
        else:
            self._transport.resume_reading()

    def _take_in(self, data: memoryview) -> int:
        """Parse data of one request, for one turn at most, and return how many bytes that was."""
        position = 0
        until = time.monotonic() + _TURN_S
        while position < len(data) and not self._is_whole and not self._closing_since:
            piece = data[position : self._framing.next(data, position)]
            position += len(piece)
            try:
                self._count(piece)
                self._parser.feed_data(piece)
            except JrError as error:
                self._refuse(error)
            except _httptools.HttpParserUpgrade:
                self._closes = True
            except _httptools.HttpParserError:
                self._break(BadRequestError("this is no HTTP request"))
            if time.monotonic() > until:
                break
        return position

    def _count(self, piece: memoryview) -> None:
        """Count a piece before the parser keeps any of it.

        Raises:
            OverloadedError: There is no memory left for it.
        """
        in_head = self._framing.in_head
        if in_head and self._request is None:
            now = self._loop.time()
            holding = self._budget.arriving(self._give_way)
            self._request = Request(now, now + self._application.timeout_s, holding)
        problem = self._framing.count(len(piece))
        if problem is not None:
            self._break(problem)
        elif in_head and self._request is not None:
            self._request.holding.grow(len(piece))

    # the parser's callbacks

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped."""
        if self._request is None or not self._framing.in_head:
            return
        self._request.add_header(name, value)

    def on_headers_complete(self) -> None:
        """Admit the request, or refuse it before its body comes."""
        request = self._request
        if request is None or self._closing_since:
            return
        self._framing.end_head(0)
        request.method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        request.keeps_alive = version != "1.0" and self._parser.should_keep_alive()
        announced = 0
        try:
            check_head(request, version)
            request.path = target_path(self._url)
            announced = announced_length(request)
            request.largest = self._application.admit(request)
            check_size(announced, request.largest)
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an answer
            self._framing.end_head(announced)
            self._refuse(error)
            return
        self._framing.end_head(announced)
        if (announced or request.is_chunked) and request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, or drop it if the request was refused."""
        self._framing.progress()
        request = self._request
        if request is None or self._refused:
            self._discarded += len(data)
            return
        try:
            check_size(len(request.body) + len(data), request.largest)
            request.holding.grow(len(data))
        except JrError as error:
            self._refuse(error)
            return
        request.body += data

    def on_message_complete(self) -> None:
        """The request is complete: answer it."""
        self._is_whole = True
        request = self._request
        if request is None or self._closing_since:
            return
        if self._refused:
            self._finish_if_sent()
            return
        request.holding.settle()
        if self._application.needs_token(request):
            self._table.mark_used(self)
        self._task = self._loop.create_task(self._answer(request))
        self._task.add_done_callback(lambda _: request.holding.release())

    # answering

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._application.answer(request)
        except asyncio.CancelledError:
            return  # the client has gone
        self._task = None
        request.body = bytearray()
        request.holding.release()
        self._respond(request, response)

    def _give_way(self) -> None:
        self._refuse(OverloadedError(_GIVES_WAY, hint="Ask again later"))

    def _refuse(self, error: Exception) -> None:
        """Answer at once, and discard the rest of the request."""
        if self._refused or self._closing_since:
            return
        request = self._request
        if request is None or self._framing.in_head:
            self._break(error)
            return
        self._refused = self._loop.time()
        request.body = bytearray()
        request.holding.release()
        response = self._application.refuse(error)
        if response.status in _CLOSE_AFTER or b"expect" in request.headers:
            request.keeps_alive = False
        self._respond(request, response)

    def _break(self, error: Exception) -> None:
        """Answer what is not a request, and close."""
        if self._closing_since:
            return
        request, self._request = self._request, None
        if request is not None:
            request.holding.release()
        if not self._refused:
            response = self._application.failure(error)
            self._transport.write(response_head(response, close=True) + response.body)
        self._close()

    def _respond(self, request: Request, response: Response) -> None:
        if self._closing_since:
            return
        if self._application.is_draining or response.status in (408, 413):
            request.keeps_alive = False
        self._closes = self._closes or not request.keeps_alive
        head = response_head(response, close=self._closes)
        body = b"" if request.method == "HEAD" else response.body
        try:
            self._leaving.grow(len(body))
        except OverloadedError as error:
            response = self._application.failure(error)
            head, body = response_head(response, close=self._closes), response.body
        self._write_by = self._loop.time() + self._application.timeout_s
        if len(body) <= _PIECE_BYTES:
            self._outgoing = memoryview(head + body)
        else:
            self._outgoing = memoryview(body)
            self._transport.write(head)
        self._write()

    def _write(self) -> None:
        while self._outgoing and not self._paused:
            piece = self._outgoing[:_PIECE_BYTES]
            self._outgoing = self._outgoing[len(piece) :]
            self.quiet_since = self._loop.time()
            self._transport.write(piece)
        if not self._outgoing and not self._paused:
            self._finish_if_sent()

    def _finish_if_sent(self) -> None:
        """Go on to the next request once the answer is sent and its request has arrived completely."""
        if self._outgoing or self._paused or not self._write_by:
            return
        self._leaving.release()
        expects = self._request is not None and b"expect" in self._request.headers
        if self._refused and not self._is_whole and not expects:
            return  # the client still sends; `sweep` and the parser see to it that this ends
        if self._closes:
            self._close()
            return
        self._write_by = self._refused = 0.0
        self._request = None
        self._framing, self._is_whole = Framing(), False
        self._url, self._discarded = b"", 0
        if self._rest:
            self._go_on_soon()

    # the table of connections

    def is_expendable(self) -> bool:
        """Whether no accepted request depends on it."""
        stalls = self._loop.time() - self.quiet_since > _STALLED_S
        return self._task is None and (not self._write_by or bool(self._refused) or stalls)

    def sweep(self, now: float) -> None:
        """Check the timeouts: of the head, the body, the answer, and an idle connection."""
        request = self._request
        if self._closing_since:
            if now - self._closing_since > _CLOSING_S:
                self.abort()
        elif self._write_by and now > self._write_by:
            self.abort()
        elif self._refused:
            if now - self._refused > _DISCARD_S or self._discarded > _DISCARD_BYTES:
                self._close()
        elif request is None:
            patience = KEEP_ALIVE_S if self._since < self.quiet_since else HEAD_SECONDS
            if now - self.quiet_since > patience or now - self._since > AGE_SECONDS:
                self._close()
        elif not self._is_whole:
            if self._framing.in_head and now - request.started > HEAD_SECONDS:
                self._close()
            elif now > request.deadline:
                self._refuse(SlowBodyError(f"the body did not arrive within {self._application.timeout_s:g} s"))

    def drain(self) -> None:
        """Accept no more requests, and close after the answer."""
        self._closes = True
        if self._request is None and not self._rest:
            self._close()

    def _close(self) -> None:
        self._closing_since = self._loop.time()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing_since = self._closing_since or self._loop.time()
        self._transport.abort()
