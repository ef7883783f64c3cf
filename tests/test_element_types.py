"""The table of element types against onnx, ml_dtypes and ONNX Runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.element_types import (
    ELEMENT_TYPES,
    FLOAT_DTYPES,
    FLOAT_NUMBERS,
    LARGEST,
    NAMES,
    NUMBERS,
    ElementType,
    numpy_dtype,
    type_name,
)


@pytest.mark.parametrize("row", ELEMENT_TYPES, ids=lambda row: row.name)
def test_every_row_says_what_onnx_says(row: ElementType) -> None:
    assert numpy_dtype(row.name) == helper.tensor_dtype_to_np_dtype(row.number)
    assert row.tensor in onnx.defs.get_schema("Identity", 14, "").inputs[0].types
    schema = row.tensor.removeprefix("tensor(").removesuffix(")")
    assert TensorProto.DataType.Name(row.number).lower() == schema


def test_no_name_stands_twice() -> None:
    assert len(NAMES) == len(NUMBERS) == len(ELEMENT_TYPES)
    datatypes = [row.datatype for row in ELEMENT_TYPES if row.datatype]
    assert len(set(datatypes)) == len(datatypes)


@pytest.mark.parametrize("name", FLOAT_DTYPES)
def test_the_largest_number_is_the_type_s(name: str) -> None:
    assert LARGEST[name] == float(ml_dtypes.finfo(numpy_dtype(name)).max)
    with np.errstate(over="ignore"):
        assert np.isinf(numpy_dtype(name).type(2.0) * numpy_dtype(name).type(LARGEST[name]))


def test_floats_are_the_ones_without_an_integer_or_a_string() -> None:
    assert {row.number for row in ELEMENT_TYPES if "float" in row.name} == FLOAT_NUMBERS


def test_messages_name_every_type_that_a_file_can_have() -> None:
    for name, number in TensorProto.DataType.items():
        assert type_name(number) == NAMES.get(number, name.lower())
    assert type_name(4711) == "4711", "a number that no version of ONNX has given out"
