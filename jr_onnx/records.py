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
import errno
import functools
import json
import math
import os
import re
import stat
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from jr_onnx.errors import InputError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
LARGEST_TEXT_BYTES = 64 << 20
LARGEST_RESULT_BYTES = 1 << 30
_INTEGER_BITS = 63
"""No count, size or seed is longer; protobuf, lists and float() raise OverflowError for longer ones."""
_Decoder = Callable[[Any], Any]
_NON_FINITE = {"nan", "inf", "-inf"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_PLAIN = {str, int, bool, type(None)}
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
        try:
            result = _decode_dataclass(cls, body)
        except _MisfitError as error:
            raise InputError(error.inside(cls.SCHEMA).message) from None
        if not isinstance(result, cls):
            raise InputError(f"{cls.SCHEMA}: the record decoded to {type(result).__name__}")
        return result


def dumps(record: Record, *, indent: int | None = 2) -> str:
    """Return a record as JSON text, keys in the order of the fields.

    The bytes of a file's name that are not text are escaped in it, so that the text can be written as UTF-8.
    """
    text = json.dumps(record.to_json(), indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\\\u{ord(found.group()):04x}", text)


def loads(cls: type[R], text: str) -> R:
    """Parse JSON text into a record of class `cls`.

    Raises:
        InputError: Not JSON, or not such a record.
    """
    try:
        value = parse(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a {cls.SCHEMA} record: {error}") from None
    return cls.from_json(value)


def parse(text: str) -> JsonValue:
    """Parse JSON text strictly: no key twice, no NaN or infinity, no half of a character.

    Raises:
        ValueError: It is not such JSON.
        RecursionError: It is nested too deeply.
    """
    value: JsonValue = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    if _SURROGATE.search(text):
        _require_text(value)
    return value


def load_file(cls: type[R], path: Path) -> R:
    """Read a record of class `cls` from a JSON file.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        text = read_regular(path, LARGEST_RESULT_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return loads(cls, text)


def read_regular(path: Path, most_bytes: int = LARGEST_TEXT_BYTES) -> bytes:
    """Read a file whole; a pipe, which may never end, a device and a huge file are not read.

    Args:
        path: The file.
        most_bytes: How large it may be.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(path))
    return content


def _require_text(value: JsonValue) -> None:
    """Refuse half a character, which JSON can write as an escape and no file can hold.

    Raises:
        ValueError: There is one.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise ValueError(f"it holds {found!r}, half a character") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a duplicate key: the JSON module would silently keep its last value."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _encode(value: Any) -> JsonValue:
    kind: Any = type(value)
    if kind in _PLAIN:
        plain: JsonValue = value
        return plain
    names = _field_names(kind)
    if names is not None:
        fields = ((name, getattr(value, name)) for name in names)
        return {name: item if type(item) in _PLAIN else _encode(item) for name, item in fields}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float | str):
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        return _encode(value.item())
    raise TypeError(f"a record cannot hold {type(value).__name__}")


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields, None for any other class."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


class _MisfitError(InputError):
    """A value that does not fit; the place grows from the inside out, so that what fits costs no text."""

    def inside(self, where: str) -> _MisfitError:
        """Return the same error, one level further out."""
        joint = "" if self.message.startswith((".", "[")) else ": "
        return _MisfitError(f"{where}{joint}{self.message}")


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    """Return what decodes JSON values of an annotation; a file of results decodes the same few a million times."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return lambda value: value
    if origin in (types.UnionType, typing.Union):
        return functools.partial(_decode_union, typing.get_args(kind))
    if origin is typing.Literal:
        return functools.partial(_decode_literal, typing.get_args(kind))
    if origin in (list, tuple):
        return functools.partial(_decode_sequence, typing.get_args(kind), origin)
    if origin is dict:
        return functools.partial(_decode_dict, typing.get_args(kind)[1])
    if dataclasses.is_dataclass(kind):
        return functools.partial(_decode_dataclass, kind)
    return {float: _decode_float, int: _decode_int}.get(kind) or functools.partial(_decode_instance, kind)


def _decode_literal(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise _MisfitError(f"found {value!r}, expected one of {list(known)}")
    return value


def _decode_dict(item_kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _MisfitError(f"found {type(value).__name__}, expected an object")
    return {key: _decode_part(_decoder(item_kind), item, ".", key) for key, item in value.items()}


def _decode_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    first: InputError | None = None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _decoder(kind)(value)
        except InputError as error:
            first = first or error
    raise first or _MisfitError(f"found {value!r}")


def _decode_sequence(arguments: tuple[Any, ...], origin: Any, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise _MisfitError(f"found {type(value).__name__}, expected a list")
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(value) != len(arguments):
            raise _MisfitError(f"found {len(value)} items, expected {len(arguments)}")
        decoders = [_decoder(kind) for kind in arguments]
    else:
        decoders = [_decoder(arguments[0])] * len(value)
    pairs = zip(decoders, value, strict=True)
    items = [_decode_part(decoder, item, "[", index) for index, (decoder, item) in enumerate(pairs)]
    return tuple(items) if origin is tuple else items


def _decode_part(decoder: _Decoder, value: Any, kind: str, place: object) -> Any:
    try:
        return decoder(value)
    except _MisfitError as error:
        raise error.inside(f"[{place}]" if kind == "[" else f".{place}") from None


def _decode_dataclass(kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _MisfitError(f"found {type(value).__name__}, expected an object")
    decoders, exact, required = _decoders_of(kind)
    if not value.keys() <= decoders.keys():
        raise _MisfitError(f"unknown field {min(value.keys() - decoders.keys())!r}")
    if not required <= value.keys():
        raise _MisfitError(
            f"the field {next(name for name in decoders if name in required - value.keys())!r} is missing"
        )
    fields = {
        name: item if type(item) in exact[name] else _decode_part(decoders[name], item, ".", name)
        for name, item in value.items()
    }
    return kind(**fields)


@functools.cache
def _decoders_of(kind: Any) -> tuple[dict[str, _Decoder], dict[str, frozenset[type]], frozenset[str]]:
    """Return of a dataclass's fields what decodes them, the types they take as they are, and which have no default."""
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    required = {field.name for field in fields if field.default is missing and field.default_factory is missing}
    decoders = {field.name: _decoder(hints[field.name]) for field in fields}
    return decoders, {name: _as_they_are(hints[name]) for name in decoders}, frozenset(required)


def _as_they_are(kind: Any) -> frozenset[type]:
    """Return the types whose JSON values are the decoded values of an annotation, so that nothing need decode them.

    An integer is not among them, for its size is to be checked.
    """
    kinds = set(typing.get_args(kind)) if typing.get_origin(kind) in (types.UnionType, typing.Union) else {kind}
    return frozenset(kinds) if kinds <= {*_PLAIN, float} - {int} and len(kinds - {type(None)}) == 1 else frozenset()


def _decode_float(value: Any) -> float:
    if isinstance(value, str) and value in _NON_FINITE:
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer beyond any float
            return float(value)
    raise _MisfitError(f"found {value!r}, expected float")


def _decode_int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _MisfitError(f"found {value!r}, expected int")
    if value.bit_length() > _INTEGER_BITS:
        raise _MisfitError(f"found an integer of {value.bit_length()} bits, expected at most {_INTEGER_BITS}")
    return value


def _decode_instance(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _MisfitError(f"found {value!r}, expected {getattr(kind, '__name__', kind)}")
