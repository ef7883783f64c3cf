from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.data import FurtherInputs, ModelInput
from jr_onnx.data.further import filled
from jr_onnx.errors import InputError

IMAGE = ModelInput("pixels", "float32", ("n", 1, 8, 8))
KEEP = ModelInput("keep", "float32", ())
FLAG = ModelInput("training", "bool", (1,))
SCALE = ModelInput("scale", "float64", ("n", 1))


def test_the_input_without_a_value_is_for_images_and_the_others_are_filled() -> None:
    found = FurtherInputs([KEEP, IMAGE, FLAG, SCALE], {"keep": 0.5, "training": 0, "scale": 2})
    feeds = found.feed(3)
    assert found.image is IMAGE
    assert list(feeds) == ["keep", "training", "scale"]
    assert [(array.dtype.name, array.tolist()) for array in feeds.values()] == [
        ("float32", 0.5),
        ("bool", [False]),
        ("float64", [[2.0], [2.0], [2.0]]),
    ]


def test_a_model_of_one_input_needs_no_value() -> None:
    assert FurtherInputs([IMAGE], {}).feed(2) == {}


@pytest.mark.parametrize("inputs", [[IMAGE, KEEP], [KEEP, IMAGE]])
def test_an_input_without_a_value_is_named_and_so_is_the_way_out(inputs: list[ModelInput]) -> None:
    with pytest.raises(InputError, match=r"needs 'keep' besides the images \('pixels'\)\. .*--value keep=NUMBER"):
        FurtherInputs(inputs, {})


def test_a_wrong_name_and_too_many_values_are_refused() -> None:
    with pytest.raises(InputError, match="no input 'keeps' to give a value, it has pixels, keep"):
        FurtherInputs([IMAGE, KEEP], {"keeps": 1.0})
    with pytest.raises(InputError, match="expected one input left for the images"):
        FurtherInputs([KEEP], {"keep": 1.0})


def test_what_no_number_fills_is_refused() -> None:
    with pytest.raises(InputError, match=r"'s' takes tensor\(string\), which no number fills"):
        filled(ModelInput("s", "tensor(string)", ()), 1.0, 1)
    with pytest.raises(InputError, match=r"found 0\.5, expected a whole number"):
        filled(ModelInput("i", "int64", ()), 0.5, 1)


def test_free_axes_after_the_first_and_an_unknown_rank_have_length_one() -> None:
    assert filled(ModelInput("a", "float32", ("n", "m", 3)), 1.0, 2).shape == (2, 1, 3)
    assert filled(ModelInput("a", "float32", None), 1.0, 2).shape == ()
    assert np.array_equal(filled(ModelInput("a", "int32", (2,)), 4.0, 5), np.array([4, 4], np.int32))
