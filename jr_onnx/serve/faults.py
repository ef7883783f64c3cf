"""What can go wrong with a request, and the one place where it gets its HTTP status and its gRPC status."""

from __future__ import annotations

import reprlib
from typing import Final

from jr_onnx.errors import InputError, JrError


class BadRequestError(InputError):
    """The request does not say what the protocol or the model wants."""


class UnauthorizedError(InputError):
    """The request does not carry the server's token."""

    http_status = 401


class ForbiddenError(InputError):
    """The server was started without what the request asks for."""

    http_status = 403


class UnknownError(InputError):
    """There is no such model, version or path."""

    http_status = 404


class MethodError(InputError):
    """The path exists, but not for this HTTP method."""

    http_status = 405


class SlowBodyError(InputError):
    """The body did not arrive in time."""

    http_status = 408


class TooLargeError(InputError):
    """The body is larger than the server takes."""

    http_status = 413


class EncodingError(InputError):
    """The body is compressed."""

    http_status = 415


class OverloadedError(JrError):
    """The server has as much to do as it accepts; asking again later is right."""

    http_status = 503


class NotReadyError(JrError):
    """The model is not loaded, or the server is about to stop."""

    http_status = 503


class TimedOutError(JrError):
    """The answer was not ready within the time a request may take."""

    http_status = 504


class InternalError(JrError):
    """A defect of the server or the model; the details are in the server's log."""

    http_status = 500


GRPC_CODES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Name of the `grpc.StatusCode` that says over gRPC what the HTTP status says over REST."""


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3  # Python's own repr of a value as deep as JSON may be fails
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def one_line(text: str, limit: int = 400) -> str:
    """Return a text of at most `limit` characters without line breaks or control characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def quoted(value: object, limit: int = 80) -> str:
    """Return a client's value for a message: its representation in ASCII, cut off where it is long or deep."""
    if isinstance(value, str):
        value = value[: limit + 1]
    text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
