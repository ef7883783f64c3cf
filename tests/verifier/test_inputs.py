"""Inputs fit the model, are the same for the same seed, and are refused in words where they mean nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.data import required_inputs
from jr_onnx.errors import InputError
from jr_onnx.verifier import InputOptions, InputsError
from jr_onnx.verifier.evaluators.errors import CannotRunError
from jr_onnx.verifier.inputs import Inputs, Sample, make_inputs


def model(*values: onnx.ValueInfoProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", [values[0].name], ["y"])]
    result = helper.make_tensor_value_info("y", values[0].type.tensor_type.elem_type, None)
    return helper.make_model(helper.make_graph(nodes, "g", list(values), [result]))


def value(name: str, element: int, shape: list[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def made(source: onnx.ModelProto, count: int = 4, **input_options: object) -> list[Sample]:
    return make_inputs(source, count, InputOptions(**input_options), lambda _: None).samples  # type: ignore[arg-type]


def test_shapes_and_types_fit() -> None:
    source = model(
        value("image", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        value("state", TensorProto.FLOAT16, [2, None, 128]),
        value("bytes", TensorProto.UINT8, [4, 4]),
        value("index", TensorProto.INT64, [5]),
        value("count", TensorProto.INT64, []),
        value("mask", TensorProto.BOOL, ["N"]),
        value("same", TensorProto.DOUBLE, ["H"]),
    )
    (sample, *_) = made(source, batch=2)
    assert sample["image"].shape == (2, 3, 64, 64)
    assert sample["state"].shape == (2, 2, 128)
    assert sample["same"].shape == (64,), "one name is one size"
    assert [str(array.dtype) for array in sample.values()] == [
        "float32", "float16", "uint8", "int64", "int64", "bool", "float64",
    ]  # fmt: skip
    assert 0 <= sample["index"].min() <= sample["index"].max() <= 9
    assert sample["count"] >= 1


def test_floats_alternate_between_normal_and_pixels() -> None:
    even, odd, *_ = made(model(value("x", TensorProto.FLOAT, [1000])))
    assert even["x"].min() < -1
    assert 0 <= odd["x"].min() <= odd["x"].max() < 1


def test_the_seed_decides() -> None:
    source = model(value("x", TensorProto.FLOAT, [8]))
    assert np.array_equal(made(source, seed=3)[0]["x"], made(source, seed=3)[0]["x"])
    assert not np.array_equal(made(source, seed=3)[0]["x"], made(source, seed=4)[0]["x"])


def test_minus_one_is_a_free_axis_and_zero_is_zero() -> None:
    source = model(value("x", TensorProto.FLOAT, [2, 0, 3]), value("z", TensorProto.FLOAT, [1, 8]))
    source.graph.input[1].type.tensor_type.shape.dim[0].dim_value = -1
    (sample, *_) = made(source)
    assert sample["x"].shape == (2, 0, 3)
    assert sample["z"].shape == (1, 8)


def test_sizes_are_tried_until_the_original_runs() -> None:
    source = model(value("x", TensorProto.FLOAT, ["batch", "length"]))
    tried: list[int] = []

    def try_out(sample: Sample) -> None:
        tried.append(sample["x"].shape[1])
        if sample["x"].shape[1] != 224:
            raise CannotRunError("too short")

    found: Inputs = make_inputs(source, 2, InputOptions(), try_out)
    assert tried == [64, 32, 224]
    assert found.samples[1]["x"].shape == (1, 224)


def test_an_original_that_runs_on_nothing_is_said_to() -> None:
    def never(_: Sample) -> None:
        raise CannotRunError("no luck")

    source = model(value("x", TensorProto.FLOAT, [3]))
    with pytest.raises(InputsError, match="no luck"):
        make_inputs(source, 1, InputOptions(), never)


def test_shapes_and_values_of_the_caller_win() -> None:
    source = model(value("x", TensorProto.FLOAT, ["N", "K"]), value("rate", TensorProto.INT64, []))
    (sample, *_) = made(source, shapes={"x": (3, 7)}, values={"rate": 16000})
    assert sample["x"].shape == (3, 7)
    assert sample["rate"].dtype == np.int64
    assert sample["rate"] == 16000
    with pytest.raises(InputError, match="--shape names the input 'nobody'"):
        made(source, shapes={"nobody": (1,)})
    with pytest.raises(InputError, match="batch size 0"):
        made(source, batch=0)


def test_initializers_need_no_input() -> None:
    source = model(value("x", TensorProto.FLOAT, [2]), value("w", TensorProto.FLOAT, [2]))
    source.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2]))
    assert [item.name for item in required_inputs(source)] == ["x"]


def test_what_cannot_be_random_is_refused() -> None:
    with pytest.raises(InputsError, match="takes strings"):
        made(model(value("x", TensorProto.STRING, [1])))
    sequence = onnx.ValueInfoProto(name="s", type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [])))
    source = model(value("x", TensorProto.FLOAT, [1]))
    source.graph.input.append(sequence)
    with pytest.raises(InputsError, match="not a tensor"):
        made(source)
    two = model(value("x", TensorProto.FLOAT, [1, 1, 8, 8]), value("z", TensorProto.FLOAT, [1]))
    with pytest.raises(InputError, match=r"needs .z. besides the images \(.x.\)"):
        made(two, data="digits")


def test_real_images_fill_a_fixed_batch() -> None:
    samples = made(model(value("x", TensorProto.FLOAT, [4, 1, 8, 8])), count=3, data="digits")
    assert [sample["x"].shape for sample in samples] == [(4, 1, 8, 8)] * 3
    assert 0 <= samples[0]["x"].min() <= samples[0]["x"].max() <= 1


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL])
@pytest.mark.parametrize("sizes", [[2**62], [2**40, 2**40], [1 << 16, 1 << 15, 2]])
def test_more_elements_than_fit_into_memory_are_refused(element: int, sizes: list[int]) -> None:
    source = model(value("x", element, [*sizes]))
    for options in ({}, {"values": {"x": 1.0}}):
        with pytest.raises(InputsError, match=rf"'x' has {sizes[0]}.* elements, expected at most 2147483648"):
            made(source, **options)
    with pytest.raises(InputsError, match="'x' has 1099511627776 elements"):
        made(model(value("x", element, ["N"])), shapes={"x": (1 << 40,)})
    assert made(source, shapes={"x": (2,)})[0]["x"].shape == (2,)
