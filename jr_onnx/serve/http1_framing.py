"""Where the parts of an HTTP/1.1 request end, so that its parser is never given a byte of the request behind it."""

from __future__ import annotations

from typing import Final

from jr_onnx.serve.faults import BadRequestError

HEAD_BYTES: Final = 64 * 1024
"""How long the head of a request may be; and chunk sizes and trailers between two pieces of a body."""

_CHUNKED_BYTES: Final = 2048  # of a chunked body that the parser is given at a time
_HEAD_END: Final = b"\r\n\r\n"


class Framing:
    """Follows one request through its head and body.

    Attributes:
        in_head: Whether the head is still coming.
        left: How many bytes of a body of announced length are still to come.
    """

    __slots__ = ("_between", "_head_bytes", "_tail", "in_head", "left")

    def __init__(self) -> None:
        self.in_head = True
        self.left = 0
        self._tail = b""  # the last bytes of the head so far, in which its end may have begun
        self._head_bytes = 0
        self._between = 0  # bytes since the last byte of a chunked body

    def end_head(self, announced: int) -> None:
        """Note that the head is whole, and how long the body will be; 0 for none and for a chunked one."""
        self.in_head = False
        self.left = announced
        self._tail = b""

    def progress(self) -> None:
        """Note that bytes of the body itself have come."""
        self._between = 0

    def next(self, data: memoryview, position: int) -> int:
        """Return the end of the next piece: of the head, of the body, or of a little where neither is known."""
        if self.left:
            return min(len(data), position + self.left)
        # A head ends with an empty line, and so does a chunked body, whose data may hold empty lines as well.
        limit = min(len(data), position + (HEAD_BYTES if self.in_head else _CHUNKED_BYTES))
        window = self._tail + bytes(data[position:limit])
        found = window.find(_HEAD_END)
        end = limit if found < 0 else position + found + len(_HEAD_END) - len(self._tail)
        self._tail = window[: len(self._tail) + end - position][-3:]
        return end

    def count(self, size: int) -> BadRequestError | None:
        """Count a piece before the parser keeps any of it; return what is wrong where something does not end."""
        if self.in_head:
            self._head_bytes += size
            if self._head_bytes > HEAD_BYTES:
                return BadRequestError("the head of the request is too long")
        elif self.left:
            self.left -= size
        else:
            self._between += size
            if self._between > HEAD_BYTES:
                return BadRequestError("the chunks or trailers of the request are too long")
        return None
