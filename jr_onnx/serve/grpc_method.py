"""A method of a gRPC service: how its request is read, and what answers it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError, Message

from jr_onnx.serve.faults import BadRequestError

SMALL_MESSAGE: Final = 64 * 1024
"""Largest request message of a method that takes no tensors."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a gRPC service.

    Attributes:
        request: Makes a message of a view of its bytes, or raises `BadRequestError`; see `parser`. It runs on the event
            loop: a method that takes long messages lets this return the view, and reads it in a thread.
        answer: The method. Takes a message and the call, and returns a short message, or the bytes of a long one behind
            its prefix. With `streams` it is an asynchronous generator of them, and takes an iterator of messages and
            the call.
        is_open: It needs no token.
        largest: Largest message in bytes, before and after it is expanded.
        streams: Messages go to and fro as long as both sides like.
    """

    request: Callable[[memoryview], object]
    answer: Callable[..., Awaitable[Message | bytes]] | Callable[..., AsyncIterator[Message | bytes]]
    is_open: bool = False
    largest: int = SMALL_MESSAGE
    streams: bool = False


def parser(kind: type[Message]) -> Callable[[memoryview], Message]:
    """Return what makes a message of a protobuf class of its bytes, for `Method.request`."""

    def parse(data: memoryview) -> Message:
        try:
            return kind.FromString(bytes(data))
        except DecodeError:
            raise BadRequestError("the message cannot be parsed") from None

    return parse
