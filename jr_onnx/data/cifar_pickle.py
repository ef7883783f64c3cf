"""The Python version of CIFAR-10: a pickled dictionary, read without letting the pickle build anything.

A pickle is a program. This reader gives it four names to call (how NumPy stores an array, and how Python 3 stores
bytes for Python 2), and each of them is a stand-in that only takes note of its arguments; NumPy never sees them
before they have been checked. Any other name is refused. The unpickler is the standard library's Python one: its C
twin would allocate whatever memory a damaged file asks for.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.reading import MAX_BYTES, reading
from jr_onnx.errors import DataError
from jr_onnx.records import read_regular

_PIXELS: Final = 3072
# The publisher's largest file is 31,035,999 bytes.
_LARGEST_FILE: Final = 64 << 20


class _Stored:
    """An array or an element type as the pickle describes it."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Name:
    """A name that the pickle may use; slots keep it from attaching anything."""

    __slots__ = ("_make",)
    _make: Callable[..., object]

    def __init__(self, make: Callable[..., object]) -> None:
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"the pickle sets the attribute {name!r}")

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("the pickle encodes something else than latin-1 text")
    return text.encode("latin1")


_ALLOWED: Final[dict[tuple[str, str], Callable[..., object]]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Stored,
    ("numpy._core.multiarray", "_reconstruct"): _Stored,
    ("numpy", "ndarray"): _Stored,
    ("numpy", "dtype"): _Stored,
    ("_codecs", "encode"): _encode,
}


# Objects of any class, sets, references outside the file: no CIFAR-10 file has them.
_REFUSED_OPCODES: Final = frozenset(
    {
        pickle.ADDITEMS,
        pickle.BINPERSID,
        pickle.DICT,
        pickle.EMPTY_SET,
        pickle.EXT1,
        pickle.EXT2,
        pickle.EXT4,
        pickle.FROZENSET,
        pickle.INST,
        pickle.NEWOBJ,
        pickle.NEWOBJ_EX,
        pickle.NEXT_BUFFER,
        pickle.OBJ,
        pickle.PERSID,
        pickle.READONLY_BUFFER,
    }
)


class _Unpickler(pickle._Unpickler):
    """Only plain values, lists, dictionaries with names as keys, and calls of the stand-ins."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        make = _ALLOWED.get((module, name))
        if make is None:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which no CIFAR-10 file needs")
        return _Name(make)

    def set_item(self) -> None:
        """Store the top two values of the stack; a key that is not text could take forever to hash."""
        value, key = self.stack.pop(), self.stack.pop()
        self._put(key, value)

    def set_items(self) -> None:
        """Store all pairs above the mark."""
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._put(key, value)

    def _put(self, key: object, value: object) -> None:
        target = self.stack[-1]
        if type(target) is not dict or not isinstance(key, bytes | str):
            raise pickle.UnpicklingError("the pickle stores an item under something else than a name")
        target[key] = value

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: handler for code, handler in pickle._Unpickler.dispatch.items() if bytes([code]) not in _REFUSED_OPCODES
    } | {pickle.SETITEM[0]: set_item, pickle.SETITEMS[0]: set_items}


def read_python_batch(path: Path, records: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return labels (N,) and pixels (N, 3072) of one pickled batch.

    Args:
        path: The file.
        records: N, the images that it must hold.

    Raises:
        DataError: Not a pickle, one that asks for anything else than arrays, or another content.
    """
    with reading(path, "a CIFAR-10 Python batch", b"\x80"):
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise DataError(f"{path} has {size} bytes, expected at most {_LARGEST_FILE}")
        content = _Unpickler(io.BytesIO(read_regular(path, MAX_BYTES)), encoding="bytes").load()
        if not isinstance(content, dict):
            raise DataError(f"{path} holds {type(content).__name__}, expected a dictionary with data and labels")
        fields = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
        missing = sorted({"data", "labels"} - fields.keys())
        if missing:
            raise DataError(f"{path} lacks the entry {missing[0]!r}, expected data and labels")
        return _labels(path, fields["labels"], records), _pixels(path, fields["data"], records)


def _labels(path: Path, value: object, records: int) -> NDArray[np.int64]:
    if not isinstance(value, list) or len(value) != records:
        found = len(value) if isinstance(value, list) else type(value).__name__
        raise DataError(f"{path}: found labels {found}, expected a list of {records}")
    for position, label in enumerate(value):
        if type(label) is not int or not 0 <= label < 256:
            # Not the label itself: the text of a nested value can be exponentially long.
            found = label if type(label) is int else type(label).__name__
            raise DataError(f"{path}: item {position} has the label {found}, expected a number from 0 to 9")
    return np.array(value, dtype=np.int64)


def _pixels(path: Path, value: object, records: int) -> NDArray[np.uint8]:
    # What ndarray.__reduce__ writes: (version, shape, element type, Fortran order, bytes).
    state = value.state if isinstance(value, _Stored) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise DataError(f"{path}: the entry data is {type(value).__name__}, expected a NumPy array")
    _, shape, kind, fortran, content = state
    element = kind.arguments[0] if isinstance(kind, _Stored) and kind.arguments else None
    if not isinstance(element, bytes | str) or element not in (b"u1", "u1"):
        raise DataError(f"{path}: the entry data has elements of another type, expected bytes (u1)")
    if shape != (records, _PIXELS) or not isinstance(content, bytes) or len(content) != records * _PIXELS:
        raise DataError(f"{path}: the entry data has another shape or size, expected ({records}, {_PIXELS}) bytes")
    pixels = np.frombuffer(content, dtype=np.uint8)
    return pixels.reshape(_PIXELS, records).T if fortran else pixels.reshape(records, _PIXELS)
