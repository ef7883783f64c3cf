"""uvicorn's HTTP protocol with bounds on what it leaves open: how long a request's head is and how long it takes."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from jr_onnx.errors import require

_httptools_impl: Any = require("uvicorn.protocols.http.httptools_impl", "serve")

HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 20.0


class BoundedHttpProtocol(_httptools_impl.HttpToolsProtocol):  # type: ignore[misc] # seen as Any by mypy
    """Closes a connection whose request line and headers are too long or arrive too slowly."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and give up a head that does not end."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        """Start a new head; between requests uvicorn's keep-alive clock runs until the first byte."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
