"""ONNX element types and tensors as torch's.

Integers wider than torch's arithmetic can do well (uint16, uint32, uint64) are carried as int64; a wrap-around at
2**64 is the only difference, and no classifier depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from jr_onnx import element_types
from jr_onnx.element_types import NUMBERS

FLOATS: dict[int, torch.dtype] = {NUMBERS[name]: getattr(torch, name) for name in element_types.FLOAT_DTYPES}
INTEGERS: dict[int, torch.dtype] = {
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.int64,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
}
INTEGER_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT32: (-(2**31), 2**31 - 1),
}
"""Ranges of the types that quantised values can have."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Which torch type an ONNX element type is computed in.

    Attributes:
        override: The one floating type every floating value gets, or None to keep the model's own types.
    """

    override: torch.dtype | None = None

    def of(self, element_type: int) -> torch.dtype | None:
        """Return the torch type of an ONNX element type, None where torch has none."""
        if element_type in FLOATS:
            return self.override or FLOATS[element_type]
        return INTEGERS.get(element_type)

    def cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a constant in the type it is computed in."""
        if self.override is not None and tensor.is_floating_point():
            return tensor.to(self.override)
        return tensor


def from_proto(tensor: onnx.TensorProto) -> torch.Tensor | None:
    """Read a TensorProto; None where its element type has no torch counterpart (strings, complex, float8)."""
    return from_array(numpy_helper.to_array(tensor), tensor.data_type)


def from_array(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], element_type: int) -> torch.Tensor | None:
    """Turn an array, of an ONNX element type that NumPy may not know, into a tensor that owns its memory."""
    if element_type == TensorProto.BFLOAT16:
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(torch.bfloat16)
    dtype = FLOATS.get(element_type, INTEGERS.get(element_type))
    if dtype is None:
        return None
    if element_type in (TensorProto.INT4, TensorProto.UINT4):
        return torch.from_numpy(np.array(array, dtype=np.int8 if dtype == torch.int8 else np.uint8))
    if element_type in (TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64):
        return torch.from_numpy(np.array(array).astype(np.int64))
    # A copy: the proto's bytes are read-only, and the proto can then be freed.
    return torch.from_numpy(np.array(array, order="C"))
