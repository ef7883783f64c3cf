"""Nodes of constants are computed, small ones and plain operators only."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from jr_onnx.element_types import Array
from jr_onnx.rewriter.folding import MAX_ELEMENTS, fold


def node(op_type: str, inputs: int = 1, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, [f"in{place}" for place in range(inputs)], ["out"], name="n", **attributes)


def numbers(*values: float, dtype: type = np.float32) -> Array:
    return np.array(values, dtype=dtype)


def test_a_node_is_computed_as_its_operator_set_says() -> None:
    found = fold(node("Sub", 2), 13, [numbers(3, 5), numbers(1)])
    assert found is not None
    assert (found.tolist(), found.dtype) == ([2.0, 4.0], np.float32)
    axes = fold(node("Unsqueeze", 1, axes=[0]), 11, [numbers(1, 2)])
    assert axes is not None
    assert axes.shape == (1, 2)
    assert fold(node("Unsqueeze", 1, axes=[0]), 13, [numbers(1, 2)]) is None, "there, axes are an input"


def test_an_input_that_is_left_out_stays_so() -> None:
    found = fold(node("DequantizeLinear", 3), 21, [numbers(4, dtype=np.int8)[0], np.float32(0.5), None])
    assert found is not None
    assert float(found) == 2.0


def test_the_node_itself_stays_as_it_is() -> None:
    given = node("Neg")
    before = given.SerializeToString()
    assert fold(given, 13, [numbers(1)]) is not None
    assert given.SerializeToString() == before


def test_a_division_by_zero_warns_nobody() -> None:
    found = fold(node("Reciprocal"), 13, [numbers(0)])
    assert found is not None
    assert found.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("given", "opset", "arguments"),
    [
        (helper.make_node("Neg", ["a"], ["b", "c"]), 13, [numbers(1)]),
        (node("Neg"), 0, [numbers(1)]),
        (node("Neg"), 13, [np.array(["text"])]),
        (node("Neg"), 13, [np.array([None])]),
        (node("Gather", 2), 13, [numbers(1), numbers(7, dtype=np.int64)]),
        (node("Reshape", 2), 13, [numbers(1, 2), numbers(3, dtype=np.int64)]),
    ],
)
def test_what_the_evaluator_does_not_know_is_no_constant(
    given: onnx.NodeProto, opset: int, arguments: list[Array]
) -> None:
    assert fold(given, opset, arguments) is None


def test_an_attribute_of_the_surrounding_function_is_not_known() -> None:
    given = node("Cast")
    given.attribute.append(onnx.AttributeProto(name="to", ref_attr_name="type", type=onnx.AttributeProto.INT))
    assert fold(given, 13, [numbers(1)]) is None


def test_a_result_has_a_few_thousand_elements_at_most() -> None:
    half = np.zeros(MAX_ELEMENTS // 2, np.float32)
    whole = fold(node("Concat", 2, axis=0), 13, [half, half])
    assert whole is not None
    assert whole.size == MAX_ELEMENTS
    assert fold(node("Concat", 3, axis=0), 13, [half, half, half[:1]]) is None
    assert fold(node("Neg"), 13, [half], most=half.size - 1) is None
    assert fold(node("Neg"), 13, [half], most=half.size) is not None


@pytest.mark.parametrize(
    ("op_type", "first", "shape", "size"),
    [
        ("ConstantOfShape", None, (64, 64), MAX_ELEMENTS),
        ("ConstantOfShape", None, (64, 65), None),
        ("ConstantOfShape", None, (0, 5), 0),
        ("ConstantOfShape", None, (1,) * 16, 1),
        ("ConstantOfShape", None, (1,) * 17, None),
        ("Expand", 2, (1024, 2), 2048),
        ("Expand", 2, (2048, 1), MAX_ELEMENTS),
        ("Expand", 2, (2049, 1), None),
        ("Expand", 1, (2**62, 2), None),
    ],
)
def test_what_grows_is_measured_before_it_is_computed(
    op_type: str, first: int | None, shape: tuple[int, ...], size: int | None
) -> None:
    wanted = np.array(shape, dtype=np.int64)
    arguments = [wanted] if first is None else [np.ones(first, np.float32), wanted]
    found = fold(node(op_type, len(arguments)), 13, arguments)
    assert (None if found is None else found.size) == size


def test_an_invalid_shape_is_refused() -> None:
    ones = np.ones(1, np.float32)
    assert fold(node("ConstantOfShape"), 13, [numbers(2.0)]) is None
    assert fold(node("Expand", 2), 13, [ones, None]) is None
    assert fold(node("Expand"), 13, [ones]) is None
