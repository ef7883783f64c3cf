r"""Write protobuf text format: the fields of a message, in order, with every string escaped.

    [("name", "digits"), ("input", [("name", 'a"b'), ("dims", (3, 32, 32))])]
    ->
    name: "digits"
    input {
      name: "a\"b"
      dims: [ 3, 32, 32 ]
    }

A message is a list of pairs, so a repeated field is a name that occurs several times. Nothing is parsed here; the
tests read the text back with protobuf itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union


@dataclass(frozen=True, slots=True)
class Symbol:
    """A bare word: the name of an enumeration's value."""

    name: str


Value: TypeAlias = Union[str, bool, int, Symbol, tuple[int, ...], "Message"]
Message: TypeAlias = list[tuple[str, Value]]

_SHORT_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def render(message: Message, *, indent: int = 0) -> str:
    """Return the text of a message, one field per line, ending in a newline."""
    return "".join(_render_field(name, value, "  " * indent, indent) for name, value in message)


def quote(text: str) -> str:
    """Return a string literal: quotes and backslashes escaped, what cannot be printed as octal bytes of UTF-8."""
    return '"' + "".join(_escape(character) for character in text) + '"'


def _render_field(name: str, value: Value, space: str, indent: int) -> str:
    if isinstance(value, list):
        return f"{space}{name} {{\n{render(value, indent=indent + 1)}{space}}}\n"
    return f"{space}{name}: {_render_scalar(value)}\n"


def _render_scalar(value: str | bool | int | Symbol | Sequence[int]) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Symbol):
        return value.name
    return f"[ {', '.join(str(item) for item in value)} ]" if value else "[ ]"


def _escape(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    # Three octal digits always, so that a digit which follows is not read as part of the escape.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8"))
