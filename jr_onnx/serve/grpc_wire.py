"""gRPC's encoding on HTTP/2: the prefix of a message, status numbers, units of timeouts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from google.protobuf.message import Message

from jr_onnx.serve.extensions.compression import ENCODINGS
from jr_onnx.serve.faults import GRPC_CODES, BadRequestError, reported

if TYPE_CHECKING:
    from jr_onnx.serve.http2 import Headers

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

PREFIX_BYTES: Final = 5
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
HEADERS: Final = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ",".join(("identity", *ENCODINGS)).encode()),
]
OK: Final = [(b"grpc-status", b"0")]


def prefix(data: bytearray) -> tuple[bool, int]:
    """Parse the prefix of a message: whether it is compressed, and its length."""
    compressed, length = struct.unpack_from(">?I", data)
    return compressed, length


def frame(answer: Message) -> bytes:
    """Return a message behind its prefix."""
    data: bytes = answer.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def seconds(timeout: bytes) -> float:
    """Return the value of a `grpc-timeout` header.

    Raises:
        BadRequestError: It is malformed.
    """
    number, unit = timeout[:-1], _UNITS.get(timeout[-1:])
    if unit is None or not number.isdigit() or len(number) > 8:
        raise BadRequestError("the header grpc-timeout is expected to be a number and a unit")
    return int(number) * unit


def trailers(error: Exception) -> Headers:
    """Return the trailers of an error."""
    known = reported(error, "grpc")
    status = STATUS[GRPC_CODES[known.http_status]]
    return [(b"grpc-status", b"%d" % status), (b"grpc-message", quote(str(known), safe=_PRINTABLE).encode())]
