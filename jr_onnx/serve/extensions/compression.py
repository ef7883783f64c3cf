"""Bodies and messages that are compressed with gzip or deflate, as tritonclient offers: bounded by what they become.

A body is expanded in pieces, each counted in the budget before the next one is made, so that a bomb costs no more than
the largest body that is allowed. `deflate` is the zlib format (RFC 9110, 8.4.1.2), as all clients send it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from jr_onnx.serve.faults import BadRequestError, EncodingError, TooLargeError, quoted
from jr_onnx.serve.workers import copying

IDENTITY: Final = ("", "identity")
ENCODINGS: Final = ("gzip", "deflate")

_EITHER: Final = zlib.MAX_WBITS | 32  # zlib finds out which of the two formats it is given
_PIECE_BYTES: Final = 1 << 20
_INLINE_BYTES: Final = 32 * 1024  # expanded in a fraction of a millisecond
_LEVEL: Final = 1  # answers are of random numbers: more effort gains next to nothing


def known_encoding(name: str) -> str:
    """Return the name of an encoding, "" for none.

    Raises:
        EncodingError: It is one that this server does not know.
    """
    name = name.strip().lower()
    if name in IDENTITY:
        return ""
    if name in ENCODINGS:
        return name
    raise EncodingError(f"the content is encoded as {quoted(name)}, expected {', '.join(ENCODINGS)} or plain")


async def expanded(data: bytes | bytearray | memoryview, largest: int, grow: Callable[[int], None]) -> bytearray:
    """Return what compressed data was.

    Args:
        data: The compressed data.
        largest: How long the result may be in bytes.
        grow: Counts bytes in the budget, or raises.

    Raises:
        BadRequestError: The data is damaged, cut off, or followed by other data.
        TooLargeError: The result would be too long.
        OverloadedError: There is no room for it in the budget.
    """
    stream = zlib.decompressobj(_EITHER)
    result = bytearray()
    rest = bytes(data)
    step = _INLINE_BYTES
    while not stream.eof:
        arguments = (rest, min(step, largest + 1 - len(result)))
        try:
            # The first piece is made at once; more than that is worth a thread.
            piece = stream.decompress(*arguments) if not result else await copying(stream.decompress, *arguments)
        except zlib.error as error:
            raise BadRequestError(f"the compressed content is damaged: {error}") from None
        if not piece and not stream.eof:
            raise BadRequestError("the compressed content is cut off")
        grow(len(piece))
        result += piece
        if len(result) > largest:
            raise TooLargeError(f"the content has more than {largest} bytes when it is expanded")
        rest, step = stream.unconsumed_tail, _PIECE_BYTES
    if stream.unused_data:
        raise BadRequestError(f"{len(stream.unused_data)} bytes follow the compressed content")
    return result


def wanted_encoding(accepted: str) -> str:
    """Return the encoding for an answer of those that a client accepts, "" for none.

    Only a client that names one of them gets it; `*` means that it does not care.
    """
    for item in accepted.lower().split(","):
        name, _, parameters = item.partition(";")
        if name.strip() in ENCODINGS and parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name.strip()
    return ""


def compressed(data: bytes, encoding: str) -> bytes:
    """Return data in an encoding of `ENCODINGS`."""
    return gzip.compress(data, _LEVEL) if encoding == "gzip" else zlib.compress(data, _LEVEL)
