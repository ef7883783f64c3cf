"""Receive a request body over ASGI: bounded in size, in time, and together with all others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jr_onnx.serve.faults import BadRequestError, EncodingError, SlowBodyError, TooLargeError, quoted
from jr_onnx.serve.gate import Budget
from jr_onnx.serve.options import Limits

Receive = Callable[[], Awaitable[Any]]
_DISCARD_TIMES = 4  # what is thrown away of a body that is too large, as multiples of the limit
_DISCARD_S = 10.0


class Disconnected(Exception):  # noqa: N818 - no error of anybody: the client has gone
    """The client has gone before its request was complete."""


class Body:
    """One request's body; use as a context manager, which gives its bytes back to the budget."""

    def __init__(self, headers: dict[bytes, bytes], limits: Limits, budget: Budget) -> None:
        self._headers = headers
        self._limits = limits
        self._holding = budget.settled()

    def __enter__(self) -> Body:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the bytes back."""
        self._holding.release()

    async def read(self, receive: Receive) -> bytes:
        """Receive all of it.

        Raises:
            TooLargeError: It is larger than allowed; what the client still sent was thrown away within bounds.
            SlowBodyError: It did not arrive in time.
            EncodingError: It is compressed.
            OverloadedError: All bodies together are too large.
            Disconnected: The client has gone.
        """
        encoding = self._headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            raise EncodingError(f"the body is encoded as {quoted(encoding.decode('latin-1'))}, expected it plain")
        announced = self._announced()
        if announced > self._limits.body_bytes:
            if b"expect" not in self._headers:
                await _discard(receive, self._limits.body_bytes * _DISCARD_TIMES)
            raise self._too_large(announced)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._receive(receive)
        except TimeoutError:
            raise SlowBodyError(f"the body did not arrive within {self._limits.timeout_s:g} s") from None

    async def _receive(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > self._limits.body_bytes:
                pieces.clear()
                if more:
                    await _discard(receive, self._limits.body_bytes * _DISCARD_TIMES)
                raise self._too_large(size)
            self._holding.grow(len(piece))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _announced(self) -> int:
        value = self._headers.get(b"content-length", b"0")
        if not value.isdigit() or len(value) > 19:
            raise BadRequestError(f"the content-length is {quoted(value.decode('latin-1'))}, expected a number")
        return int(value)

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(f"the body has {size} bytes or more, expected at most {self._limits.body_bytes}")


async def _discard(receive: Receive, most: int) -> None:
    """Throw away what the client still sends: most clients read no answer before they have sent everything."""
    try:
        async with asyncio.timeout(_DISCARD_S):
            while most > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                most -= len(message.get("body", b""))
    except TimeoutError:
        return
