"""The protocol's tensors: its names of element types, what a model takes, and whether an array is that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from jr_onnx.deploy.model import TensorFacts
from jr_onnx.errors import ModelError
from jr_onnx.serve.faults import BadRequestError, quoted

BYTES: Final = "BYTES"
_LARGEST_RANK: Final = 32
_LENGTH_BYTES: Final = 4  # before every element of a BYTES tensor

_DATATYPES: Final[dict[int, tuple[str, str]]] = {
    onnx.TensorProto.BOOL: ("BOOL", "bool"),
    onnx.TensorProto.UINT8: ("UINT8", "uint8"),
    onnx.TensorProto.UINT16: ("UINT16", "uint16"),
    onnx.TensorProto.UINT32: ("UINT32", "uint32"),
    onnx.TensorProto.UINT64: ("UINT64", "uint64"),
    onnx.TensorProto.INT8: ("INT8", "int8"),
    onnx.TensorProto.INT16: ("INT16", "int16"),
    onnx.TensorProto.INT32: ("INT32", "int32"),
    onnx.TensorProto.INT64: ("INT64", "int64"),
    onnx.TensorProto.FLOAT16: ("FP16", "float16"),
    onnx.TensorProto.FLOAT: ("FP32", "float32"),
    onnx.TensorProto.DOUBLE: ("FP64", "float64"),
    onnx.TensorProto.STRING: (BYTES, "object"),
}

Array = NDArray[Any]


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
    dtype: np.dtype[Any]
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
        known = tensor.element_type in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(tensor.element_type).lower() if known else str(tensor.element_type)
        raise ModelError(
            f"{tensor.name!r} is of type {name}, which the server cannot carry",
            hint="Add a Cast to float32 or float16 at the model's border",
        )
    datatype, dtype = _DATATYPES[tensor.element_type]
    return TensorSpec(tensor.name, datatype, np.dtype(dtype), tensor.dims, tensor.optional)


def checked_shape(spec: TensorSpec, shape: object) -> tuple[int, ...]:
    """Return a client's shape as integers if the model takes it.

    Raises:
        BadRequestError: It is no shape, or not one of this input.
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
        array = array != 0  # a byte that is neither 0 nor 1 is no bool that a kernel may see
    # The tensor follows JSON of any length; kernels may expect what an allocator would have given them.
    return np.ascontiguousarray(array).reshape(shape) if array.ctypes.data % 16 == 0 else array.reshape(shape).copy()


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

    Raises:
        BadRequestError: There are more or fewer elements than the shape needs, or one of another type or range.
    """
    if not isinstance(data, list):
        raise BadRequestError(f"the data of input {spec.name!r} is {quoted(data)}, expected a list")
    try:
        # NumPy makes float64 of a list of integers below and above 2^63, which loses digits.
        array: Array = np.array(data, dtype=object if spec.is_bytes or spec.datatype == "UINT64" else None)
    except (ValueError, OverflowError, RecursionError):
        raise BadRequestError(f"the data of input {spec.name!r} is nested unevenly or holds no numbers") from None
    if array.size != math.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise BadRequestError(
            f"input {spec.name!r} has data of shape {quoted(list(array.shape))}, expected {quoted(list(shape))} or a "
            f"flat list of {math.prod(shape)} elements"
        )
    return _converted(spec, array).reshape(shape)


def _converted(spec: TensorSpec, array: Array) -> Array:
    if spec.is_bytes:
        if not all(isinstance(element, str) for element in array.ravel()):
            raise BadRequestError(f"the data of input {spec.name!r} holds something else than strings")
        return array
    if array.dtype.kind == "O" and all(type(element) is int for element in array.ravel()):
        bounds = np.iinfo(np.uint64)
        if array.size and (array.min() < bounds.min or array.max() > bounds.max):
            raise BadRequestError(f"the data of input {spec.name!r} holds numbers out of the range of {spec.datatype}")
        array = array.astype(np.uint64)
    wanted = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[spec.dtype.kind]
    if array.dtype.kind not in wanted:
        raise BadRequestError(f"the data of input {spec.name!r} holds {array.dtype.name}, expected {spec.datatype}")
    if spec.dtype.kind in "iu":
        bounds = np.iinfo(spec.dtype)
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise BadRequestError(f"the data of input {spec.name!r} holds numbers out of the range of {spec.datatype}")
        return array.astype(spec.dtype)
    with np.errstate(over="ignore"):
        result = array.astype(spec.dtype)
    if spec.dtype.kind == "f" and not np.isfinite(result).all() and np.isfinite(array).all():
        raise BadRequestError(f"the data of input {spec.name!r} holds numbers beyond the range of {spec.datatype}")
    return result


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
