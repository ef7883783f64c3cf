"""HTTP/2 connections: the `h2` library for frames and headers, with every buffer counted here.

What comes in is cut into turns of a few frames, so that a flood of tiny ones leaves the event loop to others. What
goes out is handed to the transport only as far as the client reads. What a client can make the server remember is
bounded (`http2_limits`): streams, the bytes of a header block, closed streams, frames that only ask for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from jr_onnx.errors import require
from jr_onnx.serve.connections import AGE_SECONDS, HEAD_SECONDS, IDLE_SECONDS, ConnectionTable, LoopTime
from jr_onnx.serve.faults import OverloadedError
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.http2_limits import FloodError, FrameLimits, bounded_connection

_events: Any = require("h2.events", "serve")
_exceptions: Any = require("h2.exceptions", "serve")
_frame: Any = require("hyperframe.frame", "serve")

_WRITE_BYTES: Final = 128 * 1024  # that may lie in the transport before we wait for the client to read
_REFUSED_STREAM, _CANCEL = 7, 8

Headers = list[tuple[bytes, bytes]]


class Stream(Protocol):
    """What a connection needs of a request on it."""

    def data(self, data: bytes) -> bool:
        """Receive a piece of the request's body."""

    def end(self) -> None:
        """The request's body is complete."""

    def lost(self) -> None:
        """The client has cancelled the request, or the connection is lost."""

    def taken(self) -> None:
        """All pieces of the answer so far have been sent; more will follow."""

    def sent(self) -> None:
        """The last byte of the answer has been sent."""

    def sweep(self, now: float) -> None:
        """Check the timeouts."""

    def is_accepted(self) -> bool:
        """Whether the request is complete, and its answer pending."""

    def give_way(self) -> None:
        """Refuse a request that is not complete, because others need its place or its memory."""


class _Outgoing:
    """The rest of an answer that waits until the client reads."""

    __slots__ = ("last", "pieces", "trailers")

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self.trailers: Headers | None = None
        self.last = False


class Http2Connection(asyncio.Protocol):
    """One connection.

    Args:
        open_stream: Makes the stream of a request from this connection, its number and its headers.
        table: Where connections are counted.
        budget: Bytes of all requests together.
        stall_s: How long a client may read nothing while an answer waits.
    """

    def __init__(
        self,
        open_stream: Callable[[Http2Connection, int, Headers], None],
        table: ConnectionTable,
        budget: ByteBudget,
        stall_s: float,
    ) -> None:
        self._open_stream = open_stream
        self._table = table
        self._budget = budget
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._h2: Any = None  # until the client sends something, so that an idle connection costs next to nothing
        self._streams: dict[int, Stream] = {}
        self._outgoing: dict[int, _Outgoing] = {}
        self._rest: deque[memoryview] = deque()  # received, but not yet taken in
        self._resting = budget.arriving(self._drop_rest)
        self._ignores_input = False  # received data is discarded from now on
        self._loop_time = LoopTime()
        self._frames = FrameLimits(self._loop.time)
        self._paused_since: float | None = None
        self._closing_since: float | None = None
        self._draining = False
        self._is_established = False
        self._used = False
        self._since = self.quiet_since = self._loop.time()

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's preface."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._table.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify all streams."""
        del exc
        self._table.remove(self)
        self._rest.clear()
        self._resting.release()
        streams, self._streams = self._streams, {}
        self._outgoing.clear()
        for stream in streams.values():
            stream.lost()
        if self._h2 is not None:
            vars(self._h2).clear()  # it refers to itself: closed connections would wait for the garbage collector
            self._h2 = None

    def pause_writing(self) -> None:
        """The client does not read: send nothing more, and read nothing that would need an answer."""
        self._paused_since = self._loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused_since = None
        if not self._rest and not self._ignores_input:
            self._transport.resume_reading()
        self._pump()

    def eof_received(self) -> bool:
        """Close: a half-closed connection would keep answers that may never be read."""
        return False

    def data_received(self, data: bytes) -> None:
        """Process received data, a few frames at a time."""
        if self._ignores_input:
            return
        left = memoryview(data)
        if not self._rest:
            if not self._table.turns.are_waiting:
                left = self._take_in(left)
                if not left or self._ignores_input:
                    return
            self._transport.pause_reading()
            self._table.turns.add(self._loop_time, self._go_on)
        self._rest.append(left)
        try:
            self._resting.grow(len(left))
        except OverloadedError:
            self._drop_rest()

    def _drop_rest(self) -> None:
        """Drop received data that was not parsed yet, and close after the pending answers.

        GOAWAY says which calls were never looked at, so that clients make them again by themselves.
        """
        self._ignores_input = True
        self._rest.clear()
        self._resting.release()
        if self._transport.is_closing():
            return
        self._transport.pause_reading()
        for stream in list(self._streams.values()):
            if not stream.is_accepted():
                stream.give_way()
        self.drain()

    def _go_on(self) -> None:
        if not self._rest or self._transport.is_closing():
            return
        data = self._rest.popleft()
        left = self._take_in(data)
        if self._ignores_input:
            return
        self._resting.shrink(len(data) - len(left))
        if left:
            self._rest.appendleft(left)
        if self._rest:
            self._table.turns.add(self._loop_time, self._go_on)
        elif self._paused_since is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take_in(self, data: memoryview) -> memoryview:
        """Process one turn of the data, and return the rest."""
        if self._h2 is None:
            self._h2 = bounded_connection()
        try:
            size = self._frames.turn(data)
            self._handle(self._h2.receive_data(data[:size]))
        except (_exceptions.ProtocolError, FloodError):
            self._flush()
            self._close()
            return data[:0]
        self._pump()
        return data[size:]

    def _handle(self, events: list[Any]) -> None:
        for event in events:
            kind = type(event)
            if kind is _events.DataReceived:
                self._take(event)
            elif kind is _events.StreamEnded:
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    stream.end()
            elif kind is _events.RequestReceived:
                self.quiet_since = self._loop.time()
                self._is_established = True
                if self._draining:
                    self._h2.reset_stream(event.stream_id, _REFUSED_STREAM)
                else:
                    self._open_stream(self, event.stream_id, event.headers)
            elif kind is _events.StreamReset:
                self._forget(event.stream_id)
            elif kind is _events.RemoteSettingsChanged:
                self._is_established = True
            elif kind is _events.ConnectionTerminated:
                self._draining = True

    def _take(self, event: Any) -> None:
        """Hand data to its stream, and let the client send as much again, unless the stream has enough."""
        stream = self._streams.get(event.stream_id)
        goes_on = True
        if stream is not None:
            self.quiet_since = self._loop.time()
            goes_on = stream.data(event.data)
        if goes_on:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif event.flow_controlled_length:
            self._h2.increment_flow_control_window(event.flow_controlled_length)  # other streams go on

    def _forget(self, number: int) -> None:
        self._outgoing.pop(number, None)
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.lost()

    # what streams call

    def begin(self, number: int, stream: Stream) -> None:
        """Register the stream of a request."""
        self._streams[number] = stream

    def mark_used(self) -> None:
        """Note that a request was accepted."""
        if not self._used:
            self._used = True
            self._table.mark_used(self)

    def answer(
        self, number: int, headers: Headers | None, data: bytes | None = None, trailers: Headers | None = None
    ) -> None:
        """Send headers, a piece of a body, trailers, or all of them; trailers end the stream."""
        if number not in self._streams:
            return
        try:
            if headers is not None:
                self._h2.send_headers(number, headers, end_stream=data is None and trailers is None)
            outgoing = self._outgoing.setdefault(number, _Outgoing())
            if data:
                outgoing.pieces.append(memoryview(data))
            if trailers is not None or data is None:
                outgoing.trailers, outgoing.last = trailers, True
            self._send(number, outgoing)
        except _exceptions.ProtocolError:  # the client has announced that it closes
            self._close()
        self._flush()

    def allow(self, number: int, size: int) -> None:
        """Let the client send more on a stream that had enough."""
        if number in self._streams:
            with contextlib.suppress(_exceptions.ProtocolError):  # the stream is over
                self._h2.increment_flow_control_window(size, number)
            self._flush()

    def refuse(self, number: int, status: bytes) -> None:
        """Answer a request that is not a gRPC call with an HTTP status."""
        self._h2.send_headers(number, [(b":status", status)], end_stream=True)
        if not self._h2.streams[number].closed:
            self._h2.reset_stream(number)

    def reset(self, number: int) -> None:
        """Reset a stream whose answer is not read."""
        self._outgoing.pop(number, None)
        self._streams.pop(number, None)
        with contextlib.suppress(_exceptions.ProtocolError):
            self._h2.reset_stream(number, _CANCEL)
        self._flush()

    # sending

    def _pump(self) -> None:
        for number in list(self._outgoing):
            if self._paused_since is not None:
                break
            outgoing = self._outgoing.get(number)
            try:
                if outgoing is not None:
                    self._send(number, outgoing)
            except _exceptions.ProtocolError:
                self._close()
                return
        self._flush()
        self._close_if_done()

    def _send(self, number: int, outgoing: _Outgoing) -> None:
        """Send what the client's windows and the transport take."""
        while outgoing.pieces:
            if self._paused_since is not None:
                return
            piece = outgoing.pieces[0]
            size = min(
                len(piece), self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, _WRITE_BYTES
            )
            if size <= 0:
                return
            self._h2.send_data(number, piece[:size])
            self.quiet_since = self._loop.time()
            if size == len(piece):
                outgoing.pieces.pop(0)
            else:
                outgoing.pieces[0] = piece[size:]
                self._flush()
        if not outgoing.last:
            self._streams[number].taken()
            return
        del self._outgoing[number]
        if outgoing.trailers is not None:
            self._h2.send_headers(number, outgoing.trailers, end_stream=True)
        stream = self._h2.streams.get(number)
        if stream is not None and not stream.closed:
            self._h2.reset_stream(number)  # answered before the request was complete: the rest of it is not needed
        answered = self._streams.pop(number, None)
        if answered is not None:
            answered.sent()

    def _flush(self) -> None:
        data = self._h2.data_to_send() if self._h2 is not None else b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # the table of connections

    def is_expendable(self) -> bool:
        """Whether no accepted request depends on it."""
        return not any(stream.is_accepted() for stream in self._streams.values())

    def sweep(self, now: float) -> None:
        """Check the timeouts: handshake, idleness, age, an answer that is not read."""
        unread = self._paused_since is not None and now - self._paused_since > self._stall_s
        if unread or (self._closing_since is not None and now - self._closing_since > HEAD_SECONDS):
            self.abort()
            return
        for stream in list(self._streams.values()):
            stream.sweep(now)
        self._flush()
        if not self._streams:
            limit = IDLE_SECONDS if self._is_established else HEAD_SECONDS
            if now - self.quiet_since > limit or self._draining:
                self.drain()
        if now - self._since > AGE_SECONDS:
            self.drain()

    def drain(self) -> None:
        """Send GOAWAY, and close after the last answer."""
        if not self._draining:
            self._draining = True
            if self._h2 is not None and not self._transport.is_closing():
                frame = _frame.GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id)
                # Not through h2, which considers the connection closed after that.
                self._transport.write(frame.serialize())
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._draining and not self._streams and not self._transport.is_closing():
            self._close()

    def _close(self) -> None:
        self._closing_since = self._loop.time()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()
