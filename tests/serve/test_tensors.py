"""Tensors as bytes."""

from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.element_types import Array
from jr_onnx.serve.tensors import TensorSpec, raw_view, to_raw


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5, np.float32), np.zeros((0, 3), np.float16), np.arange(6.0).reshape(2, 3).T,
        np.arange(24, dtype=np.int16).reshape(4, 6)[::2, 1:], np.array([[True], [False]]),
        np.arange(5, dtype=np.uint64),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)  # fmt: skip
def test_the_view_of_a_tensor_has_its_bytes_in_row_major_order(array: Array) -> None:
    spec = TensorSpec("y", "any", array.dtype, None)
    view = raw_view(spec, array)
    assert (bytes(view), len(view)) == (to_raw(spec, array), array.nbytes)
    assert b"".join([b"head", view]) == b"head" + array.tobytes()


def test_strings_have_their_lengths_before_them() -> None:
    spec = TensorSpec("y", "BYTES", np.dtype(object), None)
    array = np.array([["a", b"bc"]], dtype=object)
    assert raw_view(spec, array) == b"\x01\0\0\0a\x02\0\0\0bc"


def test_a_large_tensor_is_not_copied() -> None:
    array = np.ones((4, 4), np.float32)
    view = raw_view(TensorSpec("y", "FP32", array.dtype, None), array)
    array[0, 0] = 2
    assert bytes(view[:4]) == np.float32(2).tobytes()
