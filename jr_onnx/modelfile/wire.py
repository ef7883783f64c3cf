"""Take the weights out of a serialised ModelProto without parsing them, and put them back without copying them.

    file bytes  --split-->  small ModelProto with 16-byte tokens in place of large payloads  +  views of the payloads
    edited ModelProto  --join-->  chunks of the new file, the payloads byte for byte where their tokens stand

Only the protobuf wire format is read (tags, varints, lengths), along the paths that lead to tensors. A model file
of any size is then edited in a few megabytes of memory, and its weights cannot be changed by the edit. A payload is
`raw_data`, or a packed `float_data` or `double_data`, of at least `THRESHOLD` bytes.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from jr_onnx.opened import FileView

THRESHOLD: Final = (32 << 10) + 1
"""Least bytes of a payload; whatever this package reads as a constant is smaller, and stays in the proto."""
TOKEN_BYTES: Final = 16
MOST_ZEROS_BYTES: Final = 64 << 20
"""Larger payloads are not looked at for zeros: reading them would cost the memory that tokens save."""
_ZEROS: Final = b"zero"
_FIRST_BYTES: Final = 64
_PIECE: Final = 1 << 20
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# Message kind -> field number -> kind of the sub-message that may hold tensors (onnx.proto).
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# TensorProto: float_data, raw_data, double_data. A 16-byte token is a valid packed value of each.
_PAYLOAD_FIELDS: Final = frozenset({4, 9, 10})
# Fields of which a message has one, or which protobuf joins if they stand twice: then their tokens would be joined too.
_JOINED: Final[dict[str, frozenset[int]]] = {
    "tensor": _PAYLOAD_FIELDS,
    "attribute": frozenset({5, 22}),
    "sparse": frozenset({1, 2}),
}

Buffer = bytes | memoryview
Payload = Buffer | FileView
"""Bytes that may still lie in a file; `opened.pieces` reads them."""


class WireError(ValueError):
    """The bytes are not a serialised protobuf message."""


@dataclass
class Payloads:
    """Views of the payloads that were taken out, and the tokens that stand for them.

    A token is 8 random bytes, the payload's index in 4 bytes, and 4 bytes that tell payloads of nothing but zeros from
    others (up to `MOST_ZEROS_BYTES`); so no weight is mistaken for one. As floats or doubles the bytes are ordinary
    numbers: a NaN might not survive the way through Python's floats.
    """

    nonce: bytes = field(default_factory=lambda: _ordinary(os.urandom(8)))
    views: list[Payload] = field(default_factory=list)

    def put(self, view: Payload) -> bytes:
        """Keep a payload and return its token."""
        self.views.append(view)
        return self.nonce + (len(self.views) - 1).to_bytes(4, "little") + (_ZEROS if _all_zero(view) else bytes(4))

    def get(self, token: Buffer) -> Payload | None:
        """Return the payload of a token, None for bytes that are not a token."""
        index = self.index(token)
        return self.views[index] if index is not None else None

    def index(self, token: Buffer) -> int | None:
        """Return the position of a token's payload in `views`, None for bytes that are not a token."""
        if len(token) != TOKEN_BYTES or bytes(token[:8]) != self.nonce:
            return None
        index = int.from_bytes(token[8:12], "little")
        return index if index < len(self.views) else None

    def require_unchanged(self) -> None:
        """Refuse payloads whose file was written to since it was opened.

        Raises:
            ModelError: It was.
        """
        for file in {id(view.file): view.file for view in self.views if isinstance(view, FileView)}.values():
            file.require_unchanged()

    def __len__(self) -> int:
        return len(self.views)


def _ordinary(random: bytes) -> bytes:
    return random[:3] + b"\x3d" + random[4:7] + b"\x3d"


def stands_for_zeros(token: Buffer) -> bool:
    """Tell whether the bytes in the place of a large payload are the token of one that is zero throughout."""
    return len(token) == TOKEN_BYTES and bytes(token[12:]) == _ZEROS


def _all_zero(view: Payload) -> bool:
    """Tell whether a payload, of a bounded size, is all zeros; hardly any is, and most show it in their first bytes."""
    if len(view) > MOST_ZEROS_BYTES:
        return False
    for start in range(0, len(view), _PIECE):
        first = start == 0 and any(_read(view[:_FIRST_BYTES]))
        if first or bytes(_read(view[start : start + _PIECE])).strip(b"\0"):
            return False
    return True


def split(data: Payload) -> tuple[bytes, Payloads]:
    """Return the serialised model with tokens for payloads, and the payloads.

    Raises:
        WireError: The bytes are cut off or are not in protobuf's wire format.
    """
    payloads = Payloads()
    view = data if isinstance(data, FileView) else memoryview(data)
    return b"".join(_split_message(view, "model", payloads)), payloads


def join(data: bytes, payloads: Payloads) -> list[Payload]:
    """Return the chunks of the full file for a serialised model that holds tokens.

    Raises:
        WireError: A token is no longer a whole field, so that its payload has no place.
    """
    positions = _positions(data, payloads.nonce)
    left = set(positions)
    chunks = _join_message(memoryview(data), 0, len(data), "model", _Joining(payloads, positions, left))
    if left:
        raise WireError(f"{len(left)} of {len(positions)} tensors were changed where only their nodes should be")
    return chunks


@dataclass
class _Joining:
    """The state of joining: all places of tokens in order, and those not yet replaced."""

    payloads: Payloads
    positions: list[int]
    left: set[int]


def _split_message(view: memoryview | FileView, kind: str, payloads: Payloads) -> list[Buffer]:
    chunks: list[Buffer] = []
    kept = 0  # start of the bytes not yet emitted
    fields = list(_fields(view, 0, len(view)))
    twice = _standing_twice(fields, _JOINED.get(kind, frozenset()))
    for number, wire_type, start, body, end in fields:
        if wire_type != _LENGTH or end - body < THRESHOLD or number in twice:
            continue
        if kind == "tensor" and number in _PAYLOAD_FIELDS:
            replacement: list[Buffer] = [payloads.put(view[body:end])]
        elif number in _CHILDREN[kind]:
            replacement = _split_message(view[body:end], _CHILDREN[kind][number], payloads)
        else:
            continue
        chunks.append(_read(view[kept:start]))
        chunks.append(_tag(number) + _varint(sum(len(chunk) for chunk in replacement)))
        chunks.extend(replacement)
        kept = end
    chunks.append(_read(view[kept:]))
    return chunks


def _read(part: Payload) -> Buffer:
    return part.tobytes() if isinstance(part, FileView) else part


def _standing_twice(fields: list[tuple[int, int, int, int, int]], numbers: frozenset[int]) -> set[int]:
    counts = Counter(field[0] for field in fields if field[0] in numbers)
    return {number for number, count in counts.items() if count > 1}


def _join_message(view: memoryview, first: int, last: int, kind: str, work: _Joining) -> list[Payload]:
    chunks: list[Payload] = []
    kept = first
    for number, wire_type, start, body, end in _fields(view, first, last):
        if wire_type != _LENGTH or not _any_between(work.positions, body, end):
            continue
        if kind == "tensor" and number in _PAYLOAD_FIELDS:
            payload = work.payloads.get(view[body:end])
            if payload is None:
                continue
            work.left.discard(body)
            replacement: list[Payload] = [payload]
        elif number in _CHILDREN[kind]:
            replacement = _join_message(view, body, end, _CHILDREN[kind][number], work)
        else:
            continue
        chunks.append(view[kept:start])
        chunks.append(_tag(number) + _varint(sum(len(chunk) for chunk in replacement)))
        chunks.extend(replacement)
        kept = end
    chunks.append(view[kept:last])
    return chunks


def _fields(view: memoryview | FileView, position: int, last: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (field number, wire type, start of the tag, start and end of the body) of every field."""
    while position < last:
        start = position
        tag, position = _read_varint(view, position, last)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise WireError(f"field number 0 at byte {start}")
        if wire_type == _LENGTH:
            length, position = _read_varint(view, position, last)
            end = position + length
        elif wire_type == _VARINT:
            _, end = _read_varint(view, position, last)
        elif wire_type == _FIXED64:
            end = position + 8
        elif wire_type == _FIXED32:
            end = position + 4
        else:
            raise WireError(f"wire type {wire_type} at byte {start}")
        if end > last:
            raise WireError(f"a field at byte {start} ends {end - last} bytes after its message")
        yield number, wire_type, start, position, end
        position = end


def _read_varint(view: memoryview | FileView, position: int, last: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= last:
            raise WireError("cut off inside a number")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError(f"a number of more than 64 bits at byte {position}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH)


def _positions(data: bytes, nonce: bytes) -> list[int]:
    found = []
    position = data.find(nonce)
    while position >= 0:
        found.append(position)
        position = data.find(nonce, position + TOKEN_BYTES)
    return found


def _any_between(positions: list[int], first: int, last: int) -> bool:
    index = bisect_left(positions, first)
    return index < len(positions) and positions[index] < last
