from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jr_onnx.data import PRESETS, Preprocessing
from jr_onnx.errors import DataError
from jr_onnx.records import dumps, loads

PIXELS = np.random.default_rng(0).random((4, 3, 5, 6), dtype=np.float32)
LAYOUTS = st.sampled_from(["NCHW", "NHWC"])


def test_the_presets_are_the_published_numbers() -> None:
    white = np.ones((1, 1, 1, 1), np.float32)
    # The range of normalised MNIST: -0.4242 to 2.8215.
    assert PRESETS["mnist"].apply(white).item() == pytest.approx(2.8215, abs=1e-4)
    assert PRESETS["mnist"].apply(0 * white).item() == pytest.approx(-0.4242, abs=1e-4)
    black = PRESETS["cifar10"].apply(np.zeros((1, 3, 1, 1), np.float32)).ravel()
    assert black == pytest.approx([-0.4914 / 0.2023, -0.4822 / 0.1994, -0.4465 / 0.2010], rel=1e-6)
    assert np.array_equal(PRESETS["none"].apply(PIXELS), PIXELS)


def test_bytes_and_the_other_layout() -> None:
    ready = Preprocessing(range=(0, 255), layout="NHWC").apply(PIXELS)
    assert ready.shape == (4, 5, 6, 3)
    assert np.array_equal(ready, (PIXELS * np.float32(255)).transpose(0, 2, 3, 1))


@given(
    mean=st.floats(-300, 300, width=32),
    std=st.floats(0.0625, 300, width=32),
    low=st.sampled_from([0.0, -1.0]),
    high=st.sampled_from([1.0, 255.0]),
    layout=LAYOUTS,
)
def test_invert_undoes_apply(mean: float, std: float, low: float, high: float, layout: str) -> None:
    chosen = Preprocessing((mean, 0.0, 1.0), (std, 1.0, 2.0), layout, (low, high))  # type: ignore[arg-type]
    back = chosen.invert(chosen.apply(PIXELS))
    # Three float32 operations on values up to |mean| + 255, each off by half a unit in the last place (2^-24),
    # and the result divided by the range.
    allowed = 4 * 2.0**-24 * (abs(mean) + 256) / (high - low) + 2.0**-24
    assert np.max(np.abs(back - PIXELS)) <= allowed


@given(st.sampled_from(sorted(PRESETS)), LAYOUTS)
def test_affine_says_the_same_as_apply(name: str, layout: str) -> None:
    pixels = PIXELS if name in {"cifar10", "imagenet", "none"} else PIXELS[:, :1]
    scale, offset = PRESETS[name].affine(pixels.shape[1])
    expected = pixels * scale[:, None, None] + offset[:, None, None]
    assert PRESETS[name].apply(pixels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_name_and_a_record_give_the_preset_back(name: str) -> None:
    assert Preprocessing.parse(name) is PRESETS[name]
    assert loads(Preprocessing, dumps(PRESETS[name])) == PRESETS[name]


def test_parts_are_parsed() -> None:
    found = Preprocessing.parse("mean=0.5,0.4,0.3; std=0.25; layout=NHWC; range=0,255")
    assert found == Preprocessing((0.5, 0.4, 0.3), (0.25,), "NHWC", (0.0, 255.0))
    assert Preprocessing.parse("") == Preprocessing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar", "found the preprocessing 'cifar', expected none, mnist"),
        ("mean=a", "found mean='a', expected numbers"),
        ("mean=1;mean=2", "found the preprocessing"),
        ("gamma=2", "found the preprocessing"),
        ("range=1", "expected two numbers"),
        ("range=1,0", "expected .low, high. with low < high"),
        ("std=0", "expected positive numbers"),
        ("std=-1", "expected positive numbers"),
        ("mean=nan", "expected finite numbers"),
        ("std=inf", "expected finite numbers"),
        ("layout=CHW", "found the layout 'CHW'"),
        ("order=GBR", "found the order 'GBR'"),
        ("size=0", "expected positive sizes"),
        ("size=a", "found size='a', expected numbers"),
        ("size=1,2,3", "expected HEIGHT,WIDTH"),
        ("resize=3,4", "expected one number"),
        ("size=224;resize=200", "a crop larger than the picture.*for instance size=224;resize=256"),
        ("mnist;cifar10", "found the preprocessing"),
        ("layout=NHWC;mnist", "found the preprocessing"),
        ("mean=1,2;std=1,2,3", "found 2 means and 3 standard deviations"),
    ],
)
def test_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing.parse(text)


def test_a_preset_is_changed_by_the_parts_after_it() -> None:
    chosen = Preprocessing.parse("imagenet;layout=NHWC; size=224;resize=256")
    assert chosen == replace(PRESETS["imagenet"], layout="NHWC", size=(224, 224), resize=256)
    assert Preprocessing.parse("size=32x48").size == (32, 48)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_blue_comes_first_and_the_mean_stays_with_its_colour(layout: str) -> None:
    chosen = Preprocessing.parse(f"mean=10,20,30;range=0,255;order=BGR;layout={layout}")
    ready = chosen.apply(PIXELS)
    planes = ready if layout == "NCHW" else ready.transpose(0, 3, 1, 2)
    assert np.array_equal(planes[:, 0], PIXELS[:, 2] * np.float32(255) - 30)
    assert np.array_equal(planes[:, 2], PIXELS[:, 0] * np.float32(255) - 10)
    # The way back is in doubles: what is lost is the rounding of `ready`, 2^-24 of at most 255, and that of the pixels.
    assert np.allclose(chosen.invert(ready), PIXELS, rtol=0, atol=2.0**-22)


def test_other_channels_or_axes_are_refused() -> None:
    with pytest.raises(DataError, match="is for 3 channels, the images have 1"):
        PRESETS["cifar10"].apply(PIXELS[:, :1])
    with pytest.raises(DataError, match="expected four axes"):
        PRESETS["none"].apply(PIXELS[0])
    with pytest.raises(DataError, match="expected four axes"):
        PRESETS["none"].invert(PIXELS[0])
