"""The element types of ONNX tensors and their names: in NumPy, in ONNX's schemas, in the Open Inference Protocol.

Numbers are those of onnx.TensorProto.DataType; they are part of the file format and never change.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]
"""An array of any element type."""
Element = TypeVar("Element", bound=np.generic)


class ElementType(NamedTuple):
    """One row of the table.

    Attributes:
        number: In onnx.TensorProto.DataType.
        name: In NumPy, or in ml_dtypes for bfloat16; "string" for strings.
        tensor: In operator schemas and in ONNX Runtime's descriptions of inputs: `tensor(float)`.
        datatype: In the Open Inference Protocol; "" where it has none.
    """

    number: int
    name: str
    tensor: str
    datatype: str


def _row(number: int, name: str, datatype: str, schema: str = "") -> ElementType:
    return ElementType(number, name, f"tensor({schema or name})", datatype)


ELEMENT_TYPES: Final = (
    _row(1, "float32", "FP32", "float"),
    _row(2, "uint8", "UINT8"),
    _row(3, "int8", "INT8"),
    _row(4, "uint16", "UINT16"),
    _row(5, "int16", "INT16"),
    _row(6, "int32", "INT32"),
    _row(7, "int64", "INT64"),
    _row(8, "string", "BYTES"),
    _row(9, "bool", "BOOL"),
    _row(10, "float16", "FP16"),
    _row(11, "float64", "FP64", "double"),
    _row(12, "uint32", "UINT32"),
    _row(13, "uint64", "UINT64"),
    _row(16, "bfloat16", ""),
)
NAMES: Final = {row.number: row.name for row in ELEMENT_TYPES}
NUMBERS: Final = {row.name: row.number for row in ELEMENT_TYPES}
TENSORS: Final = {row.tensor: row for row in ELEMENT_TYPES}
"""By the name in schemas and in ONNX Runtime."""
_OTHERS: Final = {
    0: "undefined", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2",
    20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
    27: "float6e2m3", 28: "float6e3m2",
}  # fmt: skip
"""Names of the types that no table above has, for messages."""

FLOAT_DTYPES: Final = ("float16", "bfloat16", "float32", "float64")
"""Floating types, the element types that a site may have."""

FLOAT_NUMBERS: Final = frozenset(NUMBERS[name] for name in FLOAT_DTYPES)

LARGEST: Final = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
}
"""The largest finite number of every floating type."""


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """Return the NumPy type of a name; bfloat16 is that of ml_dtypes, which onnx brings, and strings are objects."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(object if name == "string" else name)


def type_name(number: int) -> str:
    """Return the name of an element type, for messages; the number itself where ONNX has not given it out."""
    return NAMES.get(number) or _OTHERS.get(number) or f"{number}"
