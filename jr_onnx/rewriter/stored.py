"""Read a constant that is stored in the model or beside it, within bounds.

Small tensors are read wherever they are, in external files too. Of large ones it is only found out whether they are
all zero, which ends at the first byte that is not; the token of a payload of zeros says so by itself (`wire`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from jr_onnx.element_types import NUMBERS, Array
from jr_onnx.errors import ModelError, one_line
from jr_onnx.modelfile import external_place, resolve
from jr_onnx.modelfile.wire import MOST_ZEROS_BYTES, TOKEN_BYTES, Payloads, stands_for_zeros
from jr_onnx.opened import pieces

_MAX_ELEMENTS = 4096
_PIECE = 1 << 20
_NUMERIC = {number for name, number in NUMBERS.items() if name not in ("bool", "string")}


@dataclass(frozen=True, slots=True)
class NotStored:
    """Why a tensor was not read; `unread` if its data are simply not available."""

    reason: str
    unread: bool = False


def read_small(tensor: TensorProto, folder: Path | None) -> Array | NotStored:
    """Return the array of a tensor of a few thousand elements at most.

    Args:
        tensor: The tensor.
        folder: The folder that external data is relative to, or None.
    """
    return read_large(tensor, folder, None, _MAX_ELEMENTS)


def read_large(tensor: TensorProto, folder: Path | None, payloads: Payloads | None, most: int) -> Array | NotStored:
    """Return the array of a tensor that may be large, and whose data may be a token.

    Args:
        tensor: The tensor.
        folder: The folder that external data is relative to, or None.
        payloads: What tokens stand for, or None if the tensor is too small to be one.
        most: How many elements it may have.
    """
    count = math.prod(tensor.dims)
    external = tensor.data_location == TensorProto.EXTERNAL
    if external and folder is None:
        return NotStored("lies in external data, which is not available", unread=True)
    if count > most:
        return NotStored(f"has {count} elements, more than {most}")
    try:
        if external and folder is not None:
            tensor = _with_data(tensor, folder)
        elif payloads is not None:
            tensor = _with_payload(tensor, payloads)
        return numpy_helper.to_array(tensor)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - onnx raises anything on a tensor that contradicts itself
        return NotStored(f"cannot be read: {one_line(error)}", unread=external)


def _with_payload(tensor: TensorProto, payloads: Payloads) -> TensorProto:
    """Return a tensor with its payload in the place of the token for it; any other tensor as it is."""
    data = _payload(_token(tensor), payloads)
    if data is None:
        return tensor
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=data)


def expand_constants(nodes: Iterable[onnx.NodeProto], payloads: Payloads, count: int) -> None:
    """Put the data back into Constant nodes of so many elements, in place: a kappa per channel may be a token.

    Args:
        nodes: The nodes.
        payloads: What tokens stand for.
        count: How many elements; other Constants stay as they are.
    """
    for node in nodes:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if math.prod(attribute.t.dims) == count and (data := _payload(attribute.t.raw_data, payloads)) is not None:
                attribute.t.raw_data = data


def _token(tensor: TensorProto) -> bytes:
    """Return what stands in the place of a large tensor's data if that is a token; any bytes if it is not."""
    if not tensor.raw_data:
        for values, dtype in ((tensor.float_data, "<f4"), (tensor.double_data, "<f8")):
            if len(values) == TOKEN_BYTES // np.dtype(dtype).itemsize:  # fewer than the shape of a large one asks for
                return np.asarray(list(values), dtype).tobytes()
    return bytes(tensor.raw_data)


def _payload(token: bytes, payloads: Payloads) -> bytes | None:
    """Return the data that a token stands for, None if it stands for none."""
    payload = payloads.get(token)
    return None if payload is None else b"".join(bytes(piece) for piece in pieces(payload))


def is_zero(tensor: TensorProto, folder: Path | None) -> bool:
    """Tell whether a large tensor is known to hold nothing but zeros; small ones are for `read_small`."""
    if tensor.data_type not in _NUMERIC or math.prod(tensor.dims) <= _MAX_ELEMENTS:
        return False
    if tensor.data_location == TensorProto.EXTERNAL:
        return folder is not None and _zero_file(tensor, folder)
    if tensor.HasField("raw_data"):
        return stands_for_zeros(tensor.raw_data) or not tensor.raw_data.strip(b"\0")
    if token := _token(tensor):
        return stands_for_zeros(token)
    stored = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data, tensor.uint64_data)
    return any(len(values) for values in stored) and not any(any(values) for values in stored)


def _with_data(tensor: TensorProto, folder: Path) -> TensorProto:
    """Return a tensor with the bytes of its external file in it; the file must lie in the folder."""
    path, offset, length = _place(tensor, folder)
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=data)


def _place(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    place = external_place(tensor)
    wanted = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return resolve(folder, place.location), place.offset, wanted


def _zero_file(tensor: TensorProto, folder: Path) -> bool:
    try:
        path, offset, left = _place(tensor, folder)
        if left > MOST_ZEROS_BYTES:
            return False
        with path.open("rb") as stream:
            stream.seek(offset)
            size = 64
            while left > 0:
                piece = stream.read(min(size, left))
                if not piece or piece.strip(b"\0"):
                    return False
                left, size = left - len(piece), _PIECE
    except (ModelError, OSError):
        return False
    return True
