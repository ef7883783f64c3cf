"""Refuse a model in which a name or another text is not UTF-8, which later readers would fail on.

Protobuf parses such a field silently and returns bytes (before version 6 it raises when it is read).
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from jr_onnx.errors import ModelError


def require_text(message: Message) -> None:
    """Look at every text field of a message and of those inside it.

    Raises:
        ModelError: One is not UTF-8.
        UnicodeDecodeError: The same, from protobuf itself; `guard.readable` makes a ModelError of it.
    """
    waiting: list[Any] = [message]
    kinds: dict[FieldDescriptor, tuple[bool, bool, bool]] = {}
    while waiting:
        for field, value in waiting.pop().ListFields():
            kind = kinds.get(field)
            if kind is None:
                text, nested = field.type == FieldDescriptor.TYPE_STRING, field.type == FieldDescriptor.TYPE_MESSAGE
                kind = kinds.setdefault(field, (text, nested, not isinstance(value, str | bytes | Message)))
            text, nested, repeated = kind
            if nested:
                waiting.extend(value if repeated else (value,))
            elif text:
                damaged = next((item for item in (value if repeated else (value,)) if not isinstance(item, str)), None)
                if damaged is not None:
                    raise ModelError(
                        f"the model holds a name that is not UTF-8 text: {bytes(damaged[:40])!r}",
                        hint="The file is damaged; export it again",
                    )
