from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.data import load
from jr_onnx.data.mnist import read_idx
from jr_onnx.errors import DataError
from tests.data.builders import idx_bytes, random_bytes, write_mnist
from tests.development import DataFolder


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("joint", ["-", "."])
def test_plain_and_gzip_and_both_spellings_give_the_same(tmp_path: Path, joint: str, compressed: bool) -> None:
    arrays = write_mnist(tmp_path, joint=joint, compressed=compressed)
    data = load(f"mnist:{tmp_path}")
    assert np.array_equal(data.pixels[:, 0], arrays["t10k-images"])
    assert np.array_equal(data.labels, arrays["t10k-labels"])
    assert data.shape == (1, 28, 28)
    assert data.name == "mnist (test)"


def test_train_and_validation_divide_the_train_files(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path, train=400)
    train, validation = (load(f"mnist:{tmp_path}", split=split) for split in ("train", "validation"))
    assert sorted([*train.indices, *validation.indices]) == list(range(400))
    assert 20 < len(validation) < 60
    assert np.array_equal(validation.pixels[:, 0], arrays["train-images"][validation.indices])


def test_the_folder_of_torchvision_is_found(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    assert len(load(f"mnist:{tmp_path}")) == 20


def test_a_plain_file_is_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(random_bytes(3, 4, 5)))
    assert isinstance(read_idx(path, 3), np.memmap)


def _header(*shape: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file|cannot read"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture, expected an IDX file|found the first bytes 89504e47"),
        (_header(2, 28, 28, kind=13) + bytes(1568), "type 0x0d with 3 axes, expected bytes"),
        (_header(2) + bytes(2), "with 1 axes, expected bytes .0x08. with 3"),
        (_header(2, 28, 28)[:9], "truncated"),
        (_header(2, 28, 28) + bytes(1567), "truncated"),
        (_header(2, 28, 28) + bytes(1569), "too long|goes on"),
        (_header(0, 28, 28), "which is empty"),
        (_header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(10), "truncated|expected at most"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes, message: str, compressed: bool) -> None:
    path = tmp_path / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in caught.value.message


def test_a_gzip_that_goes_on_for_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(_header(1, 28, 28) + bytes(50 << 20)))
    with pytest.raises(DataError, match="goes on after the 784 bytes"):
        read_idx(path, 3)


def test_damaged_gzip_is_a_data_error(tmp_path: Path) -> None:
    whole = gzip.compress(_header(2, 28, 28) + random_bytes(1568).tobytes())
    path = tmp_path / "images.gz"
    for content in (whole[:-20], b"no gzip", whole[:50] + b"\0" * 20 + whole[70:]):
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_idx(path, 3)


def test_counts_and_labels_must_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(19, np.uint8)))
    with pytest.raises(DataError, match=r"holds 20 images, .* 19 labels"):
        load(f"mnist:{tmp_path}")
    labels.write_bytes(idx_bytes(np.full(20, 10, np.uint8)))
    with pytest.raises(DataError, match="item 0 has the label 10, expected 0 to 9"):
        load(f"mnist:{tmp_path}")
    labels.unlink()
    with pytest.raises(DataError, match="lacks the labels of t10k"):
        load(f"mnist:{tmp_path}")


def test_a_missing_or_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder, expected one with MNIST files"):
        load(f"mnist:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="holds no MNIST file, expected t10k-images-idx3-ubyte"):
        load(f"mnist:{tmp_path}")


def test_the_real_files_are_read(data_dir: DataFolder) -> None:
    test = load(f"mnist:{data_dir / 'mnist'}")
    assert len(test) == 10_000
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean of the whole training set is the known 0.1307, that of the test set 0.1325.
    assert float(test.images.mean(dtype=np.float64)) == pytest.approx(0.13251, abs=1e-4)
