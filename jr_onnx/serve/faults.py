"""Errors of requests, each with its HTTP status and its gRPC status."""

from __future__ import annotations

import logging
import re
import reprlib
import time
from typing import Final

from jr_onnx.errors import InputError, JrError, one_line

_LOG = logging.getLogger("jr_onnx.serve")
_LINES = 20  # of requests that failed at once,
_LINES_A_SECOND = 1.0  # and in the long run


class BadRequestError(InputError):
    """The request does not fit the protocol or the model."""


class UnauthorizedError(InputError):
    """The request does not carry the server's token."""

    http_status = 401


class ForbiddenError(InputError):
    """The server was not started with what the request needs."""

    http_status = 403


class UnknownError(InputError):
    """There is no such model, version or path."""

    http_status = 404


class MethodError(InputError):
    """The path exists, but not for this HTTP method."""

    http_status = 405


class LoadError(JrError):
    """The model's file or package cannot be served."""

    http_status = 409


class SlowBodyError(InputError):
    """The body did not arrive in time."""

    http_status = 408


class TooLargeError(InputError):
    """The body is larger than the server takes."""

    http_status = 413


class EncodingError(InputError):
    """The body is compressed."""

    http_status = 415


class UnimplementedError(InputError):
    """There is no such method."""

    http_status = 501


class OverloadedError(JrError):
    """The server is at one of its limits; the client should retry later."""

    http_status = 503


class NotReadyError(JrError):
    """The model is not loaded, or the server is about to stop."""

    http_status = 503


class TimedOutError(JrError):
    """The answer was not ready within the time a request may take."""

    http_status = 504


class InternalError(JrError):
    """A defect of the server or the model; the details are in the server's log.

    Attributes:
        origin: What failed, and where, for the log.
    """

    http_status = 500

    def __init__(
        self, message: str = "internal error", *, hint: str = "See the server's log", origin: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.origin = origin


class _Lines:
    """A rate limit of log lines; those left out are counted."""

    def __init__(self) -> None:
        self._credit = float(_LINES)
        self._since = time.monotonic()
        self._left_out = 0

    def log(self, line: str) -> None:
        """Log a line, unless there were too many recently."""
        now = time.monotonic()
        self._credit = min(_LINES, self._credit + (now - self._since) * _LINES_A_SECOND)
        self._since = now
        if self._credit < 1:
            self._left_out += 1
            return
        self._credit -= 1
        more = f" ({self._left_out} such lines were left out)" if self._left_out else ""
        self._left_out = 0
        _LOG.error("%s%s", one_line(line, 1000), more)


_LINES_LEFT: Final = _Lines()


def reported(error: Exception, transport: str) -> JrError:
    """Return the error that the client gets; an internal error goes to the log as well, on one line."""
    found = error if isinstance(error, JrError) and error.http_status != InternalError.http_status else _internal(error)
    if isinstance(found, InternalError):
        log_failure(f"a {transport} request failed: {found.origin}")
    return found


def detached(error: Exception) -> JrError:
    """Return an error that can be kept: the frames of its traceback would keep the tensors of the request."""
    if not isinstance(error, JrError) or error.http_status == InternalError.http_status:
        return _internal(error)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _internal(error: Exception) -> InternalError:
    if isinstance(error, InternalError):
        return error
    cause = error.__cause__ or error.__context__ or error if isinstance(error, JrError) else error
    last = cause.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else f" at {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
    return InternalError(origin=f"{type(cause).__name__}: {cause}{where}")


def log_failure(line: str) -> None:
    """Log a failing request on one line without control characters, unless there were too many recently."""
    _LINES_LEFT.log(line)


GRPC_CODES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Name of the `grpc.StatusCode` that says over gRPC what the HTTP status says over REST."""


_SOURCE = re.compile(r"(?<!\S)/[^\s:]*/([^\s/:]+\.(?:h|hpp|cuh|cc|cpp|cu):\d+)")
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3  # Python's own repr of a value as deep as JSON may be fails
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def engine_message(error: Exception) -> str:
    """Return ONNX Runtime's message on one line, without the paths of its own source files."""
    return one_line(_SOURCE.sub(r"\1", str(error)), 600)


def quoted(value: object, limit: int = 80) -> str:
    """Return a client's value for a message: its representation in ASCII, cut off where it is long or deep."""
    if isinstance(value, str):
        value = value[: limit + 1]
    text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
