"""Read a `ModelInferRequest` without more memory than its tensors take.

protobuf copies raw tensors, and makes objects of some fifty bytes of fields that take two. So of a long message only
the outline is read first, as tags and lengths: raw tensors stay views of the message, everything else must be
short, and what protobuf will make of typed contents is known before it is made.

    message --split--> raw tensors as views + pieces of a short message --parse--> `ModelInferRequest` without them
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from jr_onnx.serve.faults import BadRequestError, TooLargeError
from jr_onnx.serve.workers import LARGE_BYTES, Worker, copying, parsing

SPLIT_BYTES: Final = 16 * 1024
"""A shorter message is parsed as it is: what it may become is bounded by its length."""

_OUTLINE_BYTES: Final = 16 * 1024  # of names, shapes, parameters; a request of a hundred tensors has less
_FIELDS: Final = 1024  # at most so many, on every level; unpacked contents have a field per element
_INPUTS, _RAW, _CONTENTS = 5, 7, 5  # numbers of fields in ModelInferRequest, and of contents in an input of it
_FIXED_CONTENTS: Final = frozenset({6, 7})  # fp32_contents, fp64_contents: as many bytes in memory as in the message
_GROWTH: Final = 16  # bytes in memory per byte of any other contents: an int64 of one byte, a string of two
_PACKED_BYTES: Final = 1024  # of a field; shorter ones may be a great many
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES: Final = 10
_MALFORMED: Final = "the message cannot be parsed"


@dataclass
class InferMessage:
    """A request whose raw tensors are views of what was received.

    Attributes:
        raw: The raw tensors; the list is emptied once they are read.
        message: The `ModelInferRequest` without them, once it is parsed.
        extra_bytes: What parsing takes beside the message.
        worker: Where reading its tensors is done; None for at once.
    """

    raw: list[bytes | memoryview] = field(default_factory=list)
    message: Message | None = None
    extra_bytes: int = 0
    worker: Worker | None = None
    _pieces: list[memoryview] = field(default_factory=list)

    @property
    def model(self) -> tuple[str, str]:
        """Name and version of the model that is asked for; empty before the message is parsed."""
        return ("", "") if self.message is None else (self.message.model_name, self.message.model_version)

    @property
    def is_typed(self) -> bool:
        """Whether there are more than a few typed contents, which take far longer to read than raw tensors."""
        return sum(map(len, self._pieces)) > _OUTLINE_BYTES

    def weigh(self, most_typed: int) -> None:
        """Find out how much memory typed contents will take.

        Args:
            most_typed: Largest typed contents whose elements have no fixed size, in bytes.

        Raises:
            BadRequestError: They are malformed, or there is too much beside them.
            TooLargeError: They are larger than allowed.
        """
        outline = fixed = other = 0
        for piece in self._pieces:
            outline += len(piece)
            _, _, payload, end = next(_fields(piece))
            if piece[0] == _INPUTS << 3 | _LENGTH:
                in_fixed, in_other = _contents(piece[payload:end])
                fixed, other = fixed + in_fixed, other + in_other
        outline -= fixed + other
        if outline > _OUTLINE_BYTES:
            raise BadRequestError(
                f"the message has {outline} bytes that are not a tensor, expected at most {_OUTLINE_BYTES}"
            )
        if other > most_typed:
            raise TooLargeError(
                f"the request has {other} bytes of typed contents, expected at most {most_typed}",
                hint="Send them as raw_input_contents",
            )
        self.extra_bytes = 2 * (fixed + other) + _GROWTH * other
        self.worker = parsing

    def parse(self, kind: type[Message]) -> None:
        """Parse everything but the raw tensors.

        Raises:
            BadRequestError: It is not such a message.
        """
        text = b"".join(self._pieces)
        self._pieces.clear()
        self.message = _parsed(text, kind)


def whole(data: memoryview, kind: type[Message]) -> InferMessage:
    """Parse a short message as it is.

    Raises:
        BadRequestError: It is not such a message.
    """
    message = _parsed(bytes(data), kind)
    return InferMessage(list(message.raw_input_contents), message)


def split(data: memoryview) -> InferMessage:
    """Read the outline of a long message, in a time that does not depend on its length.

    Raises:
        BadRequestError: It is malformed, or has more fields than any request needs.
    """
    result = InferMessage(worker=copying if len(data) >= LARGE_BYTES else None)
    for number, start, payload, end in _fields(data):
        if number == _RAW and data[start] & 7 == _LENGTH:  # of another wire type it is an unknown field
            result.raw.append(data[payload:end])
        else:
            result._pieces.append(data[start:end])
    return result


def _contents(data: memoryview) -> tuple[int, int]:
    """Return how many bytes of an input's typed contents have elements of fixed size, and how many have others."""
    fixed = other = 0
    for number, _, payload, end in _fields(data):
        if number != _CONTENTS:
            continue
        inner = data[payload:end]
        for kind, start, value, stop in _fields(inner, most=len(inner)):
            # Elements that are not packed are a field each, which costs more to parse than to send.
            if kind in _FIXED_CONTENTS and stop - value > _PACKED_BYTES:
                fixed += stop - start
            else:
                other += stop - start
    return fixed, other


def _fields(data: memoryview, most: int = _FIELDS) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a message: number, and where it starts, where its payload starts, and where it ends.

    Raises:
        BadRequestError: It is malformed or has more than `most` fields.
    """
    position, count, length = 0, 0, len(data)
    while position < length:
        start = position
        tag, position = _varint(data, position)
        kind = tag & 7
        payload = position
        if kind == _LENGTH:
            size, payload = _varint(data, position)
            position = payload + size
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        else:
            raise BadRequestError(_MALFORMED)
        count += 1
        if position > length:
            raise BadRequestError(_MALFORMED)
        if count > most:
            raise BadRequestError(f"the message has more than {most} fields, expected fewer")
        yield tag >> 3, start, payload, position


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[position : position + _VARINT_BYTES]:
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise BadRequestError(_MALFORMED)


def _parsed(text: bytes, kind: type[Message]) -> Any:
    try:
        return kind.FromString(text)
    except DecodeError:
        raise BadRequestError(_MALFORMED) from None
