from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from jr_onnx.data import PRESETS, InputAdapter, ModelInput, Preprocessing, load, padded
from jr_onnx.errors import DataError

GRAY, COLOUR, VECTOR = (1, 8, 8), (3, 6, 5), (1, 1, 12)
NHWC = Preprocessing(layout="NHWC")


def _adapter(
    shape: tuple[int | str | None, ...] | None,
    image: tuple[int, int, int] = GRAY,
    chosen: Preprocessing = PRESETS["none"],
    dtype: str = "float32",
) -> InputAdapter:
    return InputAdapter(ModelInput("input", dtype, shape), image, chosen)


def _pixels(image: tuple[int, int, int], count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, *image), dtype=np.float32)


@pytest.mark.parametrize(
    ("shape", "image", "chosen", "expected"),
    [
        (("n", 1, 8, 8), GRAY, PRESETS["none"], (3, 1, 8, 8)),
        ((None, None, None, None), GRAY, PRESETS["none"], (3, 1, 8, 8)),
        ((-1, 1, 8, 8), GRAY, PRESETS["none"], (3, 1, 8, 8)),
        ((3, 1, 8, 8), GRAY, PRESETS["none"], (3, 1, 8, 8)),
        (("n", 8, 8), GRAY, PRESETS["none"], (3, 8, 8)),
        (("n", 64), GRAY, PRESETS["none"], (3, 64)),
        (("n", "features"), COLOUR, PRESETS["none"], (3, 90)),
        (None, COLOUR, PRESETS["none"], (3, 3, 6, 5)),
        (("n", 6, 5, 3), COLOUR, NHWC, (3, 6, 5, 3)),
        (("n", 90), COLOUR, NHWC, (3, 90)),
        (("n", 64, 1), GRAY, PRESETS["none"], (3, 64, 1)),
        (("n", 64, 1, 1), GRAY, PRESETS["none"], (3, 64, 1, 1)),
        (("n", 1, 64), GRAY, PRESETS["none"], (3, 1, 64)),
        (("n", "w", 1), GRAY, PRESETS["none"], (3, 64, 1)),
        (("n", 1, 1, 8, 8), GRAY, PRESETS["none"], (3, 1, 1, 8, 8)),
        (("n", 8, 8, 1), GRAY, PRESETS["none"], (3, 8, 8, 1)),
        (("n", 1, 90), COLOUR, NHWC, (3, 1, 90)),
        (("unk__0", "unk__1", "unk__2"), GRAY, PRESETS["none"], (3, 8, 8)),
        (("n", 12), VECTOR, PRESETS["none"], (3, 12)),
        (("n", "f"), VECTOR, PRESETS["none"], (3, 12)),
        (("n", 12, 1), VECTOR, PRESETS["none"], (3, 12, 1)),
        (("n", 3, 2, 2), VECTOR, PRESETS["none"], (3, 3, 2, 2)),
        (None, VECTOR, PRESETS["none"], (3, 12)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_pixels_reach_the_model_and_come_back(
    shape: tuple[int | str | None, ...] | None,
    image: tuple[int, int, int],
    chosen: Preprocessing,
    expected: tuple[int, ...],
    dtype: str,
) -> None:
    adapter, pixels = _adapter(shape, image, chosen, dtype), _pixels(image)
    ready = adapter.to_model(pixels)
    assert ready.shape == expected
    assert ready.dtype == np.dtype(dtype)
    assert np.array_equal(ready.ravel(), chosen.apply(pixels).ravel().astype(dtype))
    # Rounding to half precision is the only loss, 2^-11 of at most 1.
    assert np.max(np.abs(adapter.to_pixels(ready) - pixels)) <= (2.0**-11 if dtype == "float16" else 0.0)


def test_bytes_go_into_a_model_that_takes_bytes() -> None:
    pixels = np.arange(192, dtype=np.float32).reshape(3, 1, 8, 8) / 255
    adapter = _adapter(("n", 1, 8, 8), chosen=Preprocessing(range=(0, 255)), dtype="uint8")
    assert adapter.to_model(pixels).ravel().tolist() == list(range(192))
    assert np.array_equal(adapter.to_pixels(adapter.to_model(pixels)), pixels)
    with pytest.raises(DataError, match=r"takes bytes, the preprocessing gives fractions. Use .* range=0,255"):
        _adapter(("n", 1, 8, 8), dtype="uint8")


@pytest.mark.parametrize(
    ("shape", "image", "chosen", "message"),
    [
        (("n", 1, 28, 28), GRAY, PRESETS["none"], r"has the shape \(n, 1, 28, 28\), which images of shape \(1, 8, 8\)"),
        (("n", 65), GRAY, PRESETS["none"], r"\(n, 65\)"),
        (("n", 6, 5, 3), COLOUR, PRESETS["none"], "It fits the layout NHWC: use the preprocessing layout=NHWC"),
        ((None, 3, 6, 5), COLOUR, NHWC, r"\(\?, 3, 6, 5\).*It fits the layout NCHW"),
        (("n", 6, 5), COLOUR, PRESETS["none"], "do not fit"),
        (("n",), GRAY, PRESETS["none"], "do not fit"),
        (("n", "a", "b"), COLOUR, PRESETS["none"], "do not fit"),  # (90, 1), or (1, 90)
        (("n", 4, 4, 4), GRAY, PRESETS["none"], "do not fit"),
        (("n", 3, 224, 224), COLOUR, PRESETS["none"], "Use data of that size, or the preprocessing size=224"),
        (("n", 32, 64, 3), COLOUR, NHWC, "the preprocessing size=32,64"),
        (("n", 3, 8, 8), GRAY, PRESETS["none"], "the model takes 3 channels, the images have 1"),
        (("n", 5, 2), VECTOR, PRESETS["none"], "do not fit"),
        (("n", 1, 8, 8), GRAY, PRESETS["cifar10"], "is for 3 channels, the images have 1"),
    ],
)
def test_a_mismatch_says_both_shapes(
    shape: tuple[int | str | None, ...], image: tuple[int, int, int], chosen: Preprocessing, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _adapter(shape, image, chosen)


@pytest.mark.parametrize("dtype", ["int64", "bfloat16", "tensor(string)"])
def test_other_element_types_are_refused(dtype: str) -> None:
    with pytest.raises(DataError, match="expected floats or bytes for images"):
        _adapter(("n", 1, 8, 8), dtype=dtype)


def test_a_fixed_batch_is_kept() -> None:
    adapter = _adapter((2, 1, 8, 8))
    assert adapter.fixed_batch == 2
    with pytest.raises(DataError, match="takes 2 images, found 3"):
        adapter.to_model(_pixels(GRAY))
    assert _adapter(("n", 1, 8, 8)).fixed_batch is None


def test_arrays_of_another_shape_are_refused() -> None:
    adapter = _adapter(("n", 64))
    with pytest.raises(DataError, match=r"images of shape \(3, 6, 5\), expected \(1, 8, 8\)"):
        adapter.to_model(_pixels(COLOUR))
    with pytest.raises(DataError, match="expected a batch of"):
        adapter.to_pixels(np.zeros((3, 65), np.float32))


@dataclass
class _Node:
    name: str
    type: str
    shape: list[int | str | None]


def test_an_input_of_onnx_runtime_is_understood() -> None:
    found = ModelInput.of_session(_Node("x", "tensor(float16)", ["N", 3, None]))
    assert found == ModelInput("x", "float16", ("N", 3, None))
    assert ModelInput.of_session(_Node("x", "tensor(string)", [])) == ModelInput("x", "tensor(string)", None)
    assert ModelInput.of_session(_Node("x", "tensor(uint16)", [1])).dtype == "uint16"


def test_the_digits_fit_a_model_of_eight_by_eight() -> None:
    data = load("digits", limit=5)
    adapter = InputAdapter(ModelInput("input", "float32", ("batch", 1, 8, 8)), data.shape, PRESETS["none"])
    assert np.array_equal(adapter.to_model(data.images), data.images)


@pytest.mark.parametrize(("batch", "expected"), [(None, [1, 2]), (1, [1, 2]), (2, [1, 2]), (4, [1, 2, 2, 2])])
def test_rows_are_padded_by_the_last_one(batch: int | None, expected: list[int]) -> None:
    assert padded(np.array([1, 2]), batch).tolist() == expected
