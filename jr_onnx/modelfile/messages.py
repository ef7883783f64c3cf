"""Protobuf messages: copied, compared, and written as text."""

from __future__ import annotations

import base64
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from jr_onnx.errors import ModelError

M = TypeVar("M", bound=Message)


def copied(message: M) -> M:
    """Return a copy of a message, unknown fields included."""
    copy: M = type(message)()
    copy.CopyFrom(message)
    return copy


def pack(message: Message) -> str:
    """Serialise a message into text for the provenance record."""
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode("ascii")


def unpack(kind: type[M], text: str) -> M:
    """Rebuild a message written by `pack`.

    Raises:
        ModelError: The text is not such a message.
    """
    try:
        message: M = kind()
        message.ParseFromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError):
        raise ModelError(
            f"the provenance holds a damaged {kind.__name__}", hint="Rewrite the original model again"
        ) from None
    return message


def same_message(one: Message, other: Message) -> bool:
    """Compare two messages field by field, unknown fields included."""
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))
