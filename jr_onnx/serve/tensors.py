"""The protocol's tensors: its names of element types, what a model takes, and whether an array is that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from jr_onnx.deploy.model import TensorFacts
from jr_onnx.element_types import ELEMENT_TYPES, Array, numpy_dtype, type_name
from jr_onnx.errors import ModelError
from jr_onnx.serve.faults import BadRequestError, quoted

BYTES: Final = "BYTES"
_LARGEST_RANK: Final = 32
_LENGTH_BYTES: Final = 4  # before every element of a BYTES tensor

_DATATYPES: Final = {row.number: (row.datatype, numpy_dtype(row.name).name) for row in ELEMENT_TYPES if row.datatype}

_ELEMENTS: Final[dict[str, set[type]]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str}}
"""Python types of the elements that an array of a kind is made of; True is not a number."""

_JSON_NAMES: Final = {
    str: "a string",
    bool: "a boolean",
    float: "a fraction",
    int: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_PIECE: Final = 8192  # elements that are converted at a time: a fraction of a millisecond


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as clients see it.

    Attributes:
        name: Its name.
        datatype: The protocol's name of the element type.
        dtype: NumPy's.
        dims: Sizes, -1 where open; None where not even the rank is known.
        optional: A request may leave it out.
    """

    name: str
    datatype: str
    dtype: np.dtype[np.generic]
    dims: tuple[int, ...] | None
    optional: bool = False

    @property
    def shape(self) -> list[int]:
        """The shape for the metadata: the protocol has no scalars and no unknown ranks."""
        return list(self.dims) if self.dims else [1] if self.dims == () else [-1]

    @property
    def is_bytes(self) -> bool:
        """Whether it holds strings."""
        return self.datatype == BYTES


def spec_of(tensor: TensorFacts) -> TensorSpec:
    """Return how clients see a model's tensor.

    Raises:
        ModelError: The protocol or NumPy cannot carry its type.
    """
    if tensor.element_type not in _DATATYPES:
        raise ModelError(
            f"{tensor.name!r} is of type {type_name(tensor.element_type)}, which the server cannot carry",
            hint="Add a Cast to float32 or float16 at the model's border",
        )
    datatype, dtype = _DATATYPES[tensor.element_type]
    return TensorSpec(tensor.name, datatype, np.dtype(dtype), tensor.dims, tensor.optional)


def checked_shape(spec: TensorSpec, shape: object) -> tuple[int, ...]:
    """Return a client's shape as integers if the model takes it.

    Raises:
        BadRequestError: It is not a shape, or does not fit this input.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes) or len(shape) > _LARGEST_RANK:
        raise BadRequestError(f"the shape of input {spec.name!r} is {quoted(shape)}, expected a list of sizes")
    sizes = tuple(shape)
    if not all(type(size) is int for size in sizes):
        raise BadRequestError(f"the shape of input {spec.name!r} is {quoted(shape)}, expected whole numbers")
    if any(size < 1 for size in sizes):
        raise BadRequestError(f"the shape of input {spec.name!r} is {quoted(shape)}, expected sizes of at least 1")
    if spec.dims is None or (spec.dims == () and sizes == (1,)):
        return sizes if spec.dims is None else ()
    fits = len(sizes) == len(spec.dims) and all(
        have == want or want == -1 for have, want in zip(sizes, spec.dims, strict=True)
    )
    if not fits:
        raise BadRequestError(f"the shape of input {spec.name!r} is {quoted(list(sizes))}, expected {spec.shape}")
    return sizes


def from_raw(spec: TensorSpec, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """Return the tensor of a client's bytes, without a copy where the bytes lie as NumPy wants them.

    Raises:
        BadRequestError: The bytes are more or fewer than the shape needs.
    """
    if spec.is_bytes:
        return _strings_from_raw(spec, shape, bytes(data))
    expected = math.prod(shape) * spec.dtype.itemsize
    if len(data) != expected:
        raise BadRequestError(
            f"input {spec.name!r} has {len(data)} bytes, expected {expected} for {spec.datatype} of shape "
            f"{quoted(list(shape))}"
        )
    array = np.frombuffer(data, dtype=np.uint8 if spec.dtype == np.bool_ else spec.dtype)
    if spec.dtype == np.bool_:
        array = array != 0  # a byte that is neither 0 nor 1 is not a valid bool for a kernel
    # The tensor follows JSON of any length; kernels may expect what an allocator would have given them.
    return np.ascontiguousarray(array).reshape(shape) if array.ctypes.data % 16 == 0 else array.reshape(shape).copy()


def raw_view(spec: TensorSpec, array: Array) -> bytes | memoryview:
    """Return a tensor's bytes as `to_raw` does, without a copy where they lie as the protocol has them."""
    return to_raw(spec, array) if spec.is_bytes else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_raw(spec: TensorSpec, array: Array) -> bytes:
    """Return a tensor's bytes as the protocol has them: row-major, little-endian."""
    if not spec.is_bytes:
        return array.tobytes()
    pieces = []
    for element in array.ravel().tolist():
        text = element if isinstance(element, bytes) else str(element).encode()
        pieces += [len(text).to_bytes(_LENGTH_BYTES, "little"), text]
    return b"".join(pieces)


def from_numbers(spec: TensorSpec, shape: tuple[int, ...], data: object) -> Array:
    """Return the tensor of a client's JSON list or protobuf field, flat or nested as the shape says.

    Counts and types are checked before anything is converted, and elements are converted a few thousand at a time: no
    element makes another take more memory, and other threads come to their turn in between.

    Args:
        spec: What the model takes.
        shape: The shape that the client says.
        data: A list, or a repeated field of protobuf.

    Raises:
        BadRequestError: There are more or fewer elements than the shape needs, or one of another type or range.
    """
    if isinstance(data, str) or not isinstance(data, Sequence):
        raise BadRequestError(f"the data of input {spec.name!r} is {quoted(data)}, expected a list")
    elements = _flat(spec, shape, data)
    result = np.empty(len(elements), dtype=spec.dtype)
    for start in range(0, len(elements), _PIECE):
        piece = elements[start : start + _PIECE]
        result[start : start + _PIECE] = _converted(spec, piece)
    return result.reshape(shape)


def _flat(spec: TensorSpec, shape: tuple[int, ...], data: Sequence[Any]) -> Sequence[Any]:
    """Return the elements in row-major order, as many as the shape says."""
    count = math.prod(shape)
    if len(data) == count and (not count or not isinstance(data[0], list)):
        return data
    level = data
    for axis, size in enumerate(shape):
        if axis:
            level = _inner(spec, level, size)
        elif len(level) != size or (len(shape) == 1 and isinstance(level[0], list)):
            raise BadRequestError(
                f"the data of input {spec.name!r} has {len(level)} elements, expected {quoted(list(shape))} nested or "
                f"a flat list of {count}"
            )
    if len(level) != count:
        raise BadRequestError(f"the data of input {spec.name!r} has {len(level)} elements, expected {count}")
    return level


def _inner(spec: TensorSpec, level: Sequence[Any], size: int) -> list[Any]:
    """Return the elements of the lists on a level, each of which must have as many as the shape says."""
    result: list[Any] = []
    for start in range(0, len(level), _PIECE):
        piece = level[start : start + _PIECE]
        if any(kind is not list for kind in set(map(type, piece))) or any(length != size for length in map(len, piece)):
            raise BadRequestError(
                f"the data of input {spec.name!r} is nested unevenly, expected lists of {size} elements on this level"
            )
        result += chain.from_iterable(piece)
    return result


def _converted(spec: TensorSpec, elements: Sequence[Any]) -> Any:
    """Return a few elements as the model takes them."""
    found = set(map(type, elements))
    wrong = found - _ELEMENTS[spec.dtype.kind]
    if wrong:
        names = ", ".join(sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in wrong))
        raise BadRequestError(f"the data of input {spec.name!r} holds {names}, expected {spec.datatype}")
    if spec.is_bytes or spec.dtype.kind == "b":
        return elements
    if spec.dtype.kind == "f":
        exact = np.array(elements, dtype=np.float64)
        with np.errstate(over="ignore"):
            result = exact.astype(spec.dtype)
        if (np.isinf(result) & np.isfinite(exact)).any():
            raise BadRequestError(f"the data of input {spec.name!r} holds numbers beyond the range of {spec.datatype}")
        return result
    bounds = np.iinfo(spec.dtype.name)
    try:
        whole = np.array(elements, dtype=np.uint64 if spec.dtype == np.uint64 else np.int64)
    except OverflowError:
        whole = None
    if whole is None or (whole.size and (int(whole.min()) < bounds.min or int(whole.max()) > bounds.max)):
        raise BadRequestError(f"the data of input {spec.name!r} holds numbers out of the range of {spec.datatype}")
    return whole


def _strings_from_raw(spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> Array:
    elements: list[str] = []
    count, position = math.prod(shape), 0
    while position < len(data) and len(elements) <= count:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or position > len(data):
            raise BadRequestError(f"the bytes of input {spec.name!r} end within an element")
        try:
            elements.append(data[start:position].decode())
        except UnicodeDecodeError:
            raise BadRequestError(f"input {spec.name!r} holds a string that is not UTF-8") from None
    if len(elements) != count:
        raise BadRequestError(f"input {spec.name!r} has {len(elements)} strings or more, expected {count}")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(shape)
