"""Requests and responses of HTTP/1.1: their heads are checked and written here; `http1` receives and sends them."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

from jr_onnx.errors import require
from jr_onnx.serve.faults import BadRequestError, TooLargeError, quoted
from jr_onnx.serve.gate import ByteBudget, Holding

_httptools: Any = require("httptools", "serve")

FIELDS: Final = 256
"""How many headers a head may have."""

_ONCE: Final = frozenset(
    {
        b"authorization", b"content-encoding", b"content-length", b"content-type", b"host",
        b"inference-header-content-length", b"origin", b"transfer-encoding",
    }
)  # fmt: skip

Headers = list[tuple[bytes, bytes]]


@dataclass(eq=False)
class Request:
    """A request, whose body may not have arrived yet.

    Attributes:
        method: Its method.
        path: The path, without escapes.
        headers: Headers by name in lower case; the last of a name.
        started: When its first byte came, by the event loop's clock.
        deadline: When its answer must be ready.
        holding: Its bytes in the budget.
        body: The part of its body that has arrived.
        largest: How long the body may be.
        repeated: A header that is repeated and must not be.
        fields: How many headers came.
        keeps_alive: Whether another request may follow on the connection.
    """

    started: float
    deadline: float
    holding: Holding
    method: str = ""
    path: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    largest: int = 0
    repeated: bytes = b""
    fields: int = 0
    keeps_alive: bool = True

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return b"transfer-encoding" in self.headers

    def add_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, of those beyond the limit only their number; the last of a name counts."""
        self.fields += 1
        if self.fields > FIELDS:
            return
        name = name.lower()
        if name in _ONCE and name in self.headers:
            self.repeated = name
        self.headers[name] = value

    def take_holding(self, budget: ByteBudget) -> Holding:
        """Return the request's bytes in the budget, which the caller releases when it lets go of them."""
        holding, self.holding = self.holding, budget.settled()
        return holding


@dataclass(frozen=True)
class Response:
    """An answer.

    Attributes:
        status: Its status.
        headers: Its headers, without those that every answer has.
        body: Its body.
    """

    status: int
    headers: Headers
    body: bytes


class Application(Protocol):
    """What answers requests."""

    timeout_s: float

    def admit(self, request: Request) -> int:
        """Return the largest body of a request of which only the head has arrived, or raise why it is refused."""

    def answer(self, request: Request) -> Awaitable[Response]:
        """Answer a complete request; raises nothing."""

    def needs_token(self, request: Request) -> bool:
        """Whether a request needs the token; health checks do not."""

    def refuse(self, error: Exception) -> Response:
        """Return the answer to a request that is refused, and count it."""

    def failure(self, error: Exception) -> Response:
        """Return the response to an error, with or without a request."""

    @property
    def is_draining(self) -> bool:
        """Whether connections are to be closed after their answers."""


def target_path(url: bytes) -> str:
    """Return the path of a request's target, without escapes.

    Raises:
        BadRequestError: It has none.
    """
    try:
        path = _httptools.parse_url(url).path
    except _httptools.HttpParserError:
        path = None
    if path is None:
        raise BadRequestError("the target of the request is not a path")
    text: str = path.decode("latin-1")
    return unquote(text) if "%" in text else text


def check_head(request: Request, version: str) -> None:
    """Refuse a head that a proxy may interpret in another way than this server (request smuggling).

    Args:
        request: The request, with its headers.
        version: The version of HTTP.

    Raises:
        BadRequestError: There are too many headers, two where there must be one, no host, or an unknown encoding.
    """
    if request.fields > FIELDS:
        raise BadRequestError(f"the request has {request.fields} headers, expected at most {FIELDS}")
    if request.repeated:
        raise BadRequestError(f"the header {quoted(request.repeated.decode('latin-1'))} comes twice, expected it once")
    if version == "1.1" and b"host" not in request.headers:
        raise BadRequestError("the request has no header 'host', which HTTP/1.1 demands")
    encoding = request.headers.get(b"transfer-encoding", b"chunked").strip().lower()
    if encoding != b"chunked":
        raise BadRequestError(f"the transfer-encoding is {quoted(encoding.decode('latin-1'))}, expected chunked")


def check_size(size: int, largest: int) -> None:
    """Refuse a body that is too long.

    Raises:
        TooLargeError: It is.
    """
    if size > largest:
        raise TooLargeError(f"the body has {size} bytes or more, expected at most {largest}")


def announced_length(request: Request) -> int:
    """Return the length that a request announces for its body; 0 where it has none or comes in chunks.

    Raises:
        BadRequestError: It is not a number.
    """
    value = b"0" if request.is_chunked else request.headers.get(b"content-length", b"0")
    if not value.isdigit() or len(value) > 19:
        raise BadRequestError("the content-length is not a number")
    return int(value)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def response_head(response: Response, *, close: bool) -> bytes:
    """Return the head of an answer, and tell the client whether the connection will be closed."""
    lines = [_status_line(response.status), _date(int(time.time()))]
    lines += [b"%b: %b\r\n" % pair for pair in response.headers]
    lines.append(b"content-length: %d\r\n" % len(response.body))
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
