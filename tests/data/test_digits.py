from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.data import SPLITS, load


def test_the_splits_share_nothing_and_cover_all() -> None:
    indices = [load("digits", split=split).indices for split in SPLITS]
    assert [len(part) for part in indices] == [1066, 358, 373]
    assert sorted(np.concatenate(indices).tolist()) == list(range(1797))


def test_no_image_of_the_test_split_is_in_another_one() -> None:
    kept = {image.tobytes() for split in ("train", "validation") for image in load("digits", split=split).pixels}
    assert not any(image.tobytes() in kept for image in load("digits").pixels)


def test_the_split_never_changes() -> None:
    # Accuracies in the model cards hold for these very images.
    digests = [load("digits", split=split).digest[:16] for split in SPLITS]
    assert digests == ["b20c9d3d6830fc51", "e96e54395dd48751", "0e916feb105d3dca"]


def test_the_limit_takes_the_front() -> None:
    assert np.array_equal(load("digits", limit=10).images, load("digits").images[:10])


def test_the_pixels_are_those_of_scikit_learn() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    for split in SPLITS:
        data = load("digits", split=split)
        assert np.array_equal(data.images[:, 0], (bunch.images[data.indices] / 16).astype(np.float32))
        assert np.array_equal(data.labels, bunch.target[data.indices])
