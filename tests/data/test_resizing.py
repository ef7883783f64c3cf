from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jr_onnx.data import Preprocessing, load
from jr_onnx.data.resizing import Resizing
from jr_onnx.errors import DataError
from tests.data.builders import random_bytes

pillow = pytest.importorskip("PIL.Image", reason="resizing needs Pillow")


def _by_hand(picture: np.ndarray, shorter: int, size: int) -> np.ndarray:
    """Resize and crop a picture (H, W, 3) with Pillow, step by step."""
    height, width = picture.shape[:2]
    factor = shorter / min(height, width)
    wide = pillow.fromarray(picture).resize((int(width * factor), int(height * factor)), pillow.Resampling.BILINEAR)
    top, left = round((wide.height - size) / 2), round((wide.width - size) / 2)
    return np.asarray(wide)[top : top + size, left : left + size]


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (32, 32), (9, 9)])
def test_pictures_are_resized_and_cropped_as_torchvision_does(tmp_path: Path, height: int, width: int) -> None:
    pictures = random_bytes(8, height, width, 3)
    for number, picture in enumerate(pictures):
        path = tmp_path / str(number % 2) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pillow.fromarray(picture).save(path)
    chosen = Preprocessing.parse("size=14;resize=16")
    data = load(f"folder:{tmp_path}", preprocessing=chosen)
    order = [0, 1, 2, 3, 4, 5, 6, 7]
    for index, found in zip(data.indices, data.pixels, strict=True):
        assert np.array_equal(found.transpose(1, 2, 0), _by_hand(pictures[order[index]], 16, 14))
    arrays = Resizing(chosen).planes(pictures.transpose(0, 3, 1, 2)[data.indices], "set")
    assert np.array_equal(arrays, data.pixels), "arrays are resized as pictures are"


def test_pictures_of_many_sizes_become_one(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / "one" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pillow.fromarray(random_bytes(5 + number, 9 - number, 3)).save(path)
    with pytest.raises(DataError, match=r"expected one shape .* size=HEIGHT,WIDTH, which resizes and crops"):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}", preprocessing=Preprocessing(size=(3, 4))).shape == (3, 3, 4)


def test_floats_stay_between_0_and_1_and_keep_their_mean() -> None:
    pixels = np.random.default_rng(0).random((3, 1, 8, 12)).astype(np.float32)
    smaller = Resizing(Preprocessing(resize=4)).planes(pixels, "set")
    assert smaller.shape == (3, 1, 4, 6)
    assert smaller.min() >= 0
    assert smaller.max() <= 1
    flat = Resizing(Preprocessing(resize=32)).planes(np.ones((1, 1, 8, 12), np.float32), "set")
    assert np.allclose(flat, 1.0, rtol=0, atol=2.0**-21), "the weights of a few pixels, each rounded to float32"


def test_nothing_to_do_leaves_the_array_alone() -> None:
    pixels = random_bytes(2, 1, 8, 8)
    assert Resizing(None).planes(pixels, "set") is pixels
    assert Resizing(Preprocessing(size=(8, 8))).planes(pixels, "set") is pixels


def test_vectors_have_no_size() -> None:
    with pytest.raises(DataError, match=r"set: found vectors, .* which cannot be resized"):
        Resizing(Preprocessing(size=(2, 2))).planes(random_bytes(2, 1, 1, 9), "set")


def test_digits_of_another_size() -> None:
    data = load("digits", limit=3, preprocessing=Preprocessing(size=(28, 28)))
    assert data.shape == (1, 28, 28)
