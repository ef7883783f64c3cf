"""Bodies and messages compressed with gzip or deflate, as tritonclient offers: their decompressed size is bounded.

A body is expanded in pieces, each counted in the budget before the next one is made, so that a bomb costs no more than
the largest body that is allowed. `deflate` is the zlib format (RFC 9110, 8.4.1.2), as all clients send it.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Final

from jr_onnx.serve.faults import BadRequestError, EncodingError, TimedOutError, TooLargeError, quoted
from jr_onnx.serve.workers import parsing

IDENTITY: Final = ("", "identity")
ENCODINGS: Final = ("gzip", "deflate")

_EITHER: Final = zlib.MAX_WBITS | 32  # zlib finds out which of the two formats it is given
_PIECE_BYTES: Final = 1 << 20
_INLINE_BYTES: Final = 32 * 1024  # expanded in a fraction of a millisecond
_SLICE_BYTES: Final = 16 * 1024
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


async def expanded(
    data: bytes | bytearray | memoryview, largest: int, grow: Callable[[int], None], seconds: float
) -> bytearray:
    """Return decompressed data.

    Args:
        data: The compressed data.
        largest: How long the result may be in bytes.
        grow: Counts bytes in the budget, or raises.
        seconds: How long it may take, most of which is waiting for others.

    Raises:
        BadRequestError: The data is damaged, cut off, or followed by other data.
        TooLargeError: The result would be too long.
        OverloadedError: There is no room for it in the budget.
        TimedOutError: It took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _expanded(data, largest, grow)
    except TimeoutError:
        raise TimedOutError("the content was not expanded within the time of the request") from None


async def _expanded(data: bytes | bytearray | memoryview, largest: int, grow: Callable[[int], None]) -> bytearray:
    expansion = _Expansion(data)
    # Short content is decompressed at once, longer on a thread.
    result = expansion.piece(min(_INLINE_BYTES, largest + 1)) if len(data) <= _INLINE_BYTES else bytearray()
    grow(len(result))
    while not expansion.is_over and len(result) <= largest:
        piece = await parsing(expansion.piece, min(_PIECE_BYTES, largest + 1 - len(result)))
        grow(len(piece))
        result += piece
    if len(result) > largest:
        raise TooLargeError(f"the content has more than {largest} bytes when it is expanded")
    if expansion.left:
        raise BadRequestError(f"{expansion.left} bytes follow the compressed content")
    return result


class _Expansion:
    """Compressed data that is expanded piece by piece, and read in slices: zlib copies what it has not used yet."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._rest = memoryview(data)
        self._slice = b""

    @property
    def is_over(self) -> bool:
        """Whether the end of the content was reached."""
        return self._stream.eof

    @property
    def left(self) -> int:
        """How many bytes follow the end."""
        return len(self._stream.unused_data) + len(self._rest)

    def piece(self, most: int) -> bytearray:
        """Return the next bytes, `most` of them except at the end.

        Raises:
            BadRequestError: The data is damaged or cut off.
        """
        result = bytearray()
        while len(result) < most and not self._stream.eof:
            if not self._slice:
                self._slice, self._rest = bytes(self._rest[:_SLICE_BYTES]), self._rest[_SLICE_BYTES:]
            is_last = not self._slice
            try:
                found = self._stream.decompress(self._slice, most - len(result))
            except zlib.error as error:
                raise BadRequestError(f"the compressed content is damaged: {error}") from None
            if is_last and not found and not self._stream.eof:
                raise BadRequestError("the compressed content is cut off")
            self._slice = self._stream.unconsumed_tail
            result += found
        return result


def wanted_encoding(accepted: str) -> str:
    """Return the encoding for an answer of those that a client accepts, "" for none.

    Only a client that names one of them gets it; `*` asks for none.
    """
    for item in accepted.lower().split(","):
        name, _, parameters = item.partition(";")
        if name.strip() in ENCODINGS and parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name.strip()
    return ""


def compressed(data: bytes, encoding: str) -> bytes:
    """Return data in an encoding of `ENCODINGS`."""
    return gzip.compress(data, _LEVEL) if encoding == "gzip" else zlib.compress(data, _LEVEL)
