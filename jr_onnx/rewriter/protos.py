"""Small helpers for protos that several steps of the rewrite share."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TypeVar

import onnx
from google.protobuf.message import DecodeError, Message

from jr_onnx.errors import ModelError
from jr_onnx.rewriter.scopes import Scope, top_scopes, walk

M = TypeVar("M", bound=Message)


def pack(message: Message) -> str:
    """Serialise a message into text for the provenance record."""
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode("ascii")


def unpack(kind: type[M], text: str) -> M:
    """Rebuild a message from `pack`.

    Raises:
        ModelError: The text is no such message.
    """
    try:
        message: M = kind()
        message.ParseFromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError):
        raise ModelError(
            f"the provenance holds a damaged {kind.__name__}", hint="Rewrite the original model again"
        ) from None
    return message


def replace_nodes(scope: Scope, nodes: Iterable[onnx.NodeProto]) -> None:
    """Put other nodes into a scope; the protos are copied."""
    kept = list(nodes)
    del scope.nodes[:]
    scope.nodes.extend(kept)


def scopes_by_path(model: onnx.ModelProto) -> dict[str, Scope]:
    """Return all scopes of a model by their paths."""
    return {scope.path: scope for top in top_scopes(model) for scope in walk(top)}


def nodes_equal(one: Message, other: Message) -> bool:
    """Compare two messages field by field, unknown fields included."""
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))
