"""Result dataclasses to JSON and back, with a schema name and version.

A record class derives from `Record`, is a dataclass, and names its schema:

    @dataclass(frozen=True, slots=True)
    class SiteRow(Record):
        SCHEMA: ClassVar[str] = "jr_onnx.site/1"
        id: str
        kappa: float | None = None

`to_json` writes the schema beside the fields; `from_json` refuses another schema, an unknown field or a missing
one. Non-finite floats travel as the strings "nan", "inf" and "-inf", because JSON has no such numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from jr_onnx.errors import InputError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
_NON_FINITE = {"nan", "inf", "-inf"}
R = TypeVar("R", bound="Record")


class Record:
    """Base of the dataclasses that are saved; see the module's docstring."""

    __slots__ = ()
    SCHEMA: ClassVar[str]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the record as JSON-ready values, the schema first."""
        encoded = _encode(self)
        if not isinstance(encoded, dict):
            raise TypeError(f"{type(self).__name__} is not a dataclass")
        return {"schema": self.SCHEMA, **encoded}

    @classmethod
    def from_json(cls, value: JsonValue) -> Self:
        """Rebuild a record from what `to_json` gave.

        Raises:
            InputError: Another schema, an unknown, missing or ill-typed field.
        """
        if not isinstance(value, dict):
            raise InputError(f"a {cls.SCHEMA} record is a JSON object, found {type(value).__name__}")
        found = value.get("schema")
        if found != cls.SCHEMA:
            raise InputError(f"found a record of schema {found!r}, expected {cls.SCHEMA!r}")
        body = {name: item for name, item in value.items() if name != "schema"}
        result = _decode(cls, body, cls.SCHEMA)
        if not isinstance(result, cls):
            raise InputError(f"{cls.SCHEMA}: the record decoded to {type(result).__name__}")
        return result


def dumps(record: Record, *, indent: int | None = 2) -> str:
    """Return a record as JSON text, keys in the order of the fields."""
    return json.dumps(record.to_json(), indent=indent, ensure_ascii=False, allow_nan=False)


def loads(cls: type[R], text: str) -> R:
    """Parse JSON text into a record of class `cls`.

    Raises:
        InputError: Not JSON, or not such a record.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a {cls.SCHEMA} record: {error}") from None
    return cls.from_json(value)


def load_file(cls: type[R], path: Path) -> R:
    """Read a record of class `cls` from a JSON file.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return loads(cls, text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice, of which the JSON module would keep the last in silence."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _encode(value: Any) -> JsonValue:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        return _encode(value.item())
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(typing.get_args(kind), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{where}: found {value!r}, expected one of {list(typing.get_args(kind))}")
        return value
    if origin in (list, tuple):
        return _decode_sequence(kind, origin, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: found {type(value).__name__}, expected an object")
        item_kind = typing.get_args(kind)[1]
        return {key: _decode(item_kind, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    return _decode_scalar(kind, value, where)


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _decode(kind, value, where)
        except InputError as error:
            problems.append(error.message)
    raise InputError(problems[0] if problems else f"{where}: found {value!r}")


def _decode_sequence(kind: Any, origin: Any, value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: found {type(value).__name__}, expected a list")
    arguments = typing.get_args(kind)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(value) != len(arguments):
            raise InputError(f"{where}: found {len(value)} items, expected {len(arguments)}")
        pairs = zip(arguments, value, strict=True)
        return tuple(_decode(part, item, f"{where}[{index}]") for index, (part, item) in enumerate(pairs))
    items = [_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: found {type(value).__name__}, expected an object")
    hints = _type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}")
    missing = [
        name
        for name, field in fields.items()
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: the field {missing[0]!r} is missing")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


@functools.cache
def _type_hints(kind: Any) -> dict[str, Any]:
    """Evaluate a class's annotations once: a model's provenance decodes the same few classes a hundred times."""
    return typing.get_type_hints(kind)


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float:
        if isinstance(value, str) and value in _NON_FINITE:
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # an integer beyond any float
                return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    raise InputError(f"{where}: found {value!r}, expected {getattr(kind, '__name__', kind)}")
