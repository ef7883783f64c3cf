from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.data import ImageData
from jr_onnx.errors import DataError
from tests.data.builders import random_bytes


def _bytes(count: int = 6) -> ImageData:
    labels = np.arange(count, dtype=np.int64) % 2
    return ImageData(random_bytes(count, 1, 4, 4), 255.0, labels, "set", ("a", "b"), np.arange(count))


def test_bytes_become_fractions_with_exact_ends() -> None:
    pixels = np.array([0, 255, 51], dtype=np.uint8).reshape(1, 3, 1, 1)
    data = ImageData(pixels, 255.0, np.zeros(1, np.int64), "set", ("a",), np.zeros(1, np.int64))
    assert data.images.dtype == np.float32
    assert data.images.ravel().tolist() == [0.0, 1.0, np.float32(0.2)]


def test_batches_are_the_images_in_order() -> None:
    data = _bytes(7)
    parts = list(data.batches(3))
    assert [len(labels) for _, labels in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate([images for images, _ in parts]), data.images)
    with pytest.raises(DataError, match="batch size of 0"):
        next(data.batches(0))


def test_take_keeps_images_labels_and_indices_together() -> None:
    data = _bytes()
    taken = data.take([5, 0])
    assert taken.indices.tolist() == [5, 0]
    assert taken.labels.tolist() == [1, 0]
    assert np.array_equal(taken.images, data.images[[5, 0]])


def test_the_digest_sees_pixels_labels_and_order_but_not_the_name() -> None:
    data = _bytes()
    same = ImageData(data.pixels.copy(), 255.0, data.labels, "other", ("x", "y"), data.indices)
    assert same.digest == data.digest
    others = [
        ImageData(255 - data.pixels, 255.0, data.labels, "set", ("a", "b"), data.indices),
        ImageData(data.pixels, 255.0, 1 - data.labels, "set", ("a", "b"), data.indices),
        ImageData(data.pixels, 16.0, data.labels, "set", ("a", "b"), data.indices),
        data.take([1, 0, 2, 3, 4, 5]),
        data.take([0, 1, 2]),
    ]
    assert len({data.digest, *(other.digest for other in others)}) == 6


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((2, 1, 2, 2), 1.5), [0, 1], "found pixels from 1.5 to 1.5, expected 0 to 1"),
        (np.full((2, 1, 2, 2), np.nan), [0, 1], "found pixels from nan"),
        (np.zeros((2, 2, 2)), [0, 1], r"shape \(2, 2, 2\), expected \(N, C, H, W\)"),
        (np.zeros((2, 1, 2, 2)), [0], "2 images, 1 labels and 2 indices"),
        (np.zeros((2, 1, 2, 2)), [0, -1], "labels from -1 to 0, expected 0 to"),
        (np.zeros((2, 1, 2, 2)), [0.0, 0.5], "item 1 has the label 0.5, expected a whole number"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(images: object, labels: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageData.from_arrays(images, labels)  # type: ignore[arg-type]


def test_odd_pixel_types_and_scales_are_refused() -> None:
    labels = indices = np.zeros(1, np.int64)
    with pytest.raises(DataError, match="pixels of type float64"):
        ImageData(np.zeros((1, 1, 2, 2)), 1.0, labels, "set", ("a",), indices)
    with pytest.raises(DataError, match="scale 0"):
        ImageData(np.zeros((1, 1, 2, 2), np.uint8), 0.0, labels, "set", ("a",), indices)
