from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jr_onnx.data import Preprocessing, load
from jr_onnx.errors import DataError
from tests.data.builders import random_bytes

COUNT = 40


def _save(path: Path, *, compressed: bool = False, **arrays: Any) -> str:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return f"npz:{path}"


def _labels(count: int = COUNT) -> np.ndarray:
    return np.arange(count) % 3


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"), ("arr_0", "arr_1")]
)
def test_one_part_is_divided_by_index(tmp_path: Path, names: tuple[str, str], compressed: bool) -> None:
    images = random_bytes(COUNT, 3, 6, 5)
    spec = _save(tmp_path / "set.npz", compressed=compressed, **{names[0]: images, names[1]: _labels()})
    test, validation = load(spec), load(spec, split="validation")
    assert sorted([*test.indices, *validation.indices]) == list(range(COUNT))
    for part in (test, validation):
        assert np.array_equal(part.pixels, images[part.indices])
        assert np.array_equal(part.labels, _labels()[part.indices])
    with pytest.raises(DataError, match="has one part only"):
        load(spec, split="train")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_in_any_precision_and_order(tmp_path: Path, dtype: str, order: Any) -> None:
    images = np.asarray(random_bytes(COUNT, 3, 5, 5) / 256, dtype=dtype, order=order)
    data = load(_save(tmp_path / "set.npz", x_test=images, y_test=_labels(), x_train=images, y_train=_labels()))
    assert np.array_equal(data.images, images.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "option", "axes"),
    [
        ((COUNT, 3, 7, 5), "", "nchw"),
        ((COUNT, 7, 5, 3), "", "nhwc"),
        ((COUNT, 7, 5, 1), "", "nhwc"),
        ((COUNT, 3, 5, 4), "?layout=NCHW", "nchw"),
        ((COUNT, 3, 5, 4), "?layout=NHWC", "nhwc"),
    ],
)
def test_the_layout_is_found_or_told(tmp_path: Path, shape: tuple[int, ...], option: str, axes: str) -> None:
    images = random_bytes(*shape)
    data = load(_save(tmp_path / "set.npz", images=images, labels=_labels()) + option)
    planes = images if axes == "nchw" else np.einsum("nhwc->nchw", images)
    assert np.array_equal(data.pixels, planes[data.indices])


def test_images_without_a_channel_axis_have_one_channel(tmp_path: Path) -> None:
    images = random_bytes(COUNT, 7, 5)
    data = load(_save(tmp_path / "set.npz", images=images, labels=_labels()))
    assert np.array_equal(data.pixels[:, 0], images[data.indices])


def test_parts_of_their_own_and_class_names(tmp_path: Path) -> None:
    arrays = {
        f"{name}_{part}": random_bytes(COUNT, 4, 4, seed=seed) if name == "x" else _labels()[:, None]
        for seed, part in enumerate(("train", "val", "test"))
        for name in ("x", "y")
    }
    spec = _save(tmp_path / "set.npz", class_names=np.array(["cat", "dog", "ship"]), **arrays)
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        data = load(spec, split=split)
        assert np.array_equal(data.pixels[:, 0], arrays[f"x_{part}"])
        assert data.class_names == ("cat", "dog", "ship")
        assert data.name == f"npz:set.npz ({split})"


def test_an_uncompressed_file_is_mapped(tmp_path: Path) -> None:
    from jr_onnx.data.npy import read_member

    path = tmp_path / "set.npz"
    images = random_bytes(COUNT, 4, 4)
    _save(path, images=images, labels=_labels())
    with zipfile.ZipFile(path) as archive:
        found = read_member(archive, "images", path)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, images)


class _Marker:
    """Unpickles into an exception that no reader would swallow."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("which", ["images", "labels"])
def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path, which: str) -> None:
    arrays: dict[str, Any] = {"images": random_bytes(2, 4, 4), "labels": np.array([0, 1])}
    arrays[which] = np.array([_Marker(), _Marker()], dtype=object)
    with pytest.raises(DataError, match="array of Python objects, which are never loaded"):
        load(_save(tmp_path / "set.npz", **arrays))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": random_bytes(COUNT, 1, 1, 4, 4)}, r"shape \(40, 1, 1, 4, 4\), expected"),
        ({"images": random_bytes(COUNT)}, r"shape \(40,\), expected"),
        ({"images": random_bytes(COUNT, 3, 8, 3)}, "may be NCHW or NHWC. Add .layout="),
        ({"images": random_bytes(COUNT, 7, 8, 9)}, "expected an axis of 1, 3 or 4 channels"),
        (
            {"images": random_bytes(COUNT, 4, 4) / 16.0},
            r"floats from 0.0 to 15.9375, expected 0 to 1\. .*npz:FILE\?range=0,16",
        ),
        ({"images": np.full((COUNT, 4, 4), np.nan)}, "images has NaN in .* places, expected finite numbers"),
        ({"images": np.full((COUNT, 4, 4), np.inf)}, "images has infinity in .* places"),
        ({"images": random_bytes(COUNT, 4, 4) / 127.5 - 1}, r"from -1.0 to 1.0.*\?range=-1,1, which brings them"),
        ({"images": random_bytes(COUNT, 4, 4) * 1.0}, r"from 0.0 to 255.0.*\?range=0,255"),
        ({"images": random_bytes(COUNT, 4, 4) * 1.0 - 130}, r"from -130.0 to 125.0.*\?range=-130,125"),
        ({"images": np.full((COUNT, 4, 4), 256)}, "whole numbers from 256 to 256, expected 0 to 255"),
        ({"images": np.full((COUNT, 4, 4), -1)}, "whole numbers from -1"),
        ({"images": np.ones((COUNT, 4, 4), bool)}, "elements of type bool"),
        ({"images": np.ones((COUNT, 4, 4), complex)}, "elements of type complex128"),
        ({"images": random_bytes(0, 4, 4)}, "which is empty"),
        ({"images": np.zeros(COUNT, [("a", "u1")])}, "no plain array. Structured types"),
        ({"labels": np.arange(COUNT - 1)}, "holds 40 images and 39 labels"),
        ({"labels": np.arange(COUNT) - 1}, "labels from -1 to 38"),
        ({"labels": np.full(COUNT, 2**40)}, "expected 0 to 99999"),
        ({"labels": np.eye(COUNT) + np.eye(COUNT, k=1)}, r"shape \(40, 40\), and row 0 is not one-hot"),
        ({"labels": np.eye(COUNT) * 0.9}, "row 0 is not one-hot .*labels.argmax"),
        ({"labels": np.full(COUNT, 0.5)}, "item 0 has the label 0.5, expected a whole number"),
        ({"labels": np.full(COUNT, np.nan)}, "item 0 has the label nan, expected a whole number"),
        ({"labels": np.zeros((COUNT, 2, 1), int)}, r"shape \(40, 2, 1\), expected \(N,\) classes, or one-hot"),
        ({"labels": np.array(["cat"] * COUNT)}, "type <U3, expected whole numbers. .*np.unique"),
        ({"class_names": np.array(["cat", "dog"])}, "item 2 has the label 2, expected 0 to 1"),
        ({"class_names": np.array([1, 2, 3])}, "class_names has the shape"),
    ],
)
def test_arrays_that_are_no_labelled_images(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {"images": random_bytes(COUNT, 4, 4), "labels": _labels()} | changes
    with pytest.raises(DataError, match=message):
        load(_save(tmp_path / "set.npz", **arrays))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64"])
@pytest.mark.parametrize("form", ["classes", "column", "one-hot"])
def test_labels_of_every_form_are_the_same_classes(tmp_path: Path, form: str, dtype: str) -> None:
    classes = np.arange(COUNT) % 2
    rows = {"classes": classes, "column": classes[:, None], "one-hot": np.eye(2)[classes]}[form].astype(dtype)
    data = load(_save(tmp_path / "set.npz", images=random_bytes(COUNT, 4, 4), labels=rows))
    assert np.array_equal(data.labels, classes[data.indices])
    assert data.class_names == ("0", "1")


def test_one_hot_labels_name_classes_that_no_item_has(tmp_path: Path) -> None:
    data = load(_save(tmp_path / "set.npz", images=random_bytes(COUNT, 4, 4), labels=np.eye(7)[_labels()]))
    assert len(data.class_names) == 7


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 255), (-2.5, 7.25)])
@pytest.mark.parametrize("axes", [(4, 4), (16,)])
def test_a_range_that_is_said_becomes_pixels(tmp_path: Path, low: float, high: float, axes: tuple[int, ...]) -> None:
    pixels = random_bytes(COUNT, *axes) / np.float64(255)
    spec = _save(tmp_path / "set.npz", images=low + pixels * (high - low), labels=_labels())
    data = load(f"{spec}?range={low},{high}")
    # Three roundings of doubles, then one to float32.
    assert np.allclose(data.images.reshape(-1, *axes), pixels[data.indices], rtol=2.0**-24, atol=1e-14)
    assert (data.range, data.notes) == ((0.0, 1.0), ())
    with pytest.raises(DataError, match=f"expected 0 to {high / 2:g}"):
        load(f"{spec}?range=0,{high / 2}&layout=NCHW")


def test_vectors_become_images_of_one_row(tmp_path: Path) -> None:
    vectors = random_bytes(COUNT, 12)
    data = load(_save(tmp_path / "bytes.npz", x=vectors, y=_labels()))
    assert np.array_equal(data.pixels, vectors[data.indices][:, None, None])
    assert data.scale == 255
    shares = load(_save(tmp_path / "floats.npz", x=vectors / 255.0, y=_labels()))
    assert np.array_equal(shares.images, data.images)
    assert (shares.range, shares.notes) == ((0.0, 1.0), ())


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_features_of_any_range_reach_the_model_as_they_are(tmp_path: Path, dtype: str) -> None:
    table = np.random.default_rng(0).integers(-40, 90, (COUNT, 5)).astype(dtype)
    table[3, 2], table[7, 0] = -50, 150
    parts = {"x_train": table[:20], "y_train": _labels(20), "x_test": table[20:], "y_test": _labels(20)}
    data = load(_save(tmp_path / "table.npz", **parts))
    assert data.range == (-50.0, 150.0), "the range of the whole file, whichever part was read"
    (note,) = data.notes
    assert "the features reach from -50 to 150" in note
    assert "0.1 is 20" in note
    ready = data.restored(Preprocessing()).apply(data.images)
    # What lies between is a share of 200 in float32: half a unit in the last place of it.
    assert np.allclose(ready.reshape(20, 5), table[20:], rtol=0, atol=200 * 2.0**-23)
    chosen = Preprocessing(range=(0, 255))
    assert data.restored(chosen) is chosen


def test_other_names_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a, b, expected images and labels"):
        load(_save(tmp_path / "set.npz", a=np.zeros(2), b=np.zeros(2)))


def _archive(path: Path, header: bytes, data: bytes, *, magic: bytes = b"\x93NUMPY\x01\x00") -> str:
    labels = io.BytesIO()
    np.save(labels, np.zeros(2, np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", magic + len(header).to_bytes(2, "little") + header + data)
        archive.writestr("labels.npy", labels.getvalue())
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }\n", "announces 10000"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 5), }\n", "announces .* the archive holds"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (2,4,4), '__import__': 1}", "no plain array"),
        (b"__import__('os').abort()", "no plain array"),
        (b"{'descr': '<f3', 'fortran_order': False, 'shape': (2, 4, 4), }\n", "damaged"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1, " * 9 + b"), }\n", "has 9 axes"),
        (b" " * 10_001, "header of 10001 bytes"),
    ],
)
def test_a_header_is_checked_before_anything_is_allocated(tmp_path: Path, header: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(_archive(tmp_path / "set.npz", header, bytes(32)))


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(DataError, match="does not exist"):
        load(f"npz:{path}")
    for content in (b"", b"PK\x03\x04", b"text", random_bytes(5000).tobytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*set.npz as an .npz file"):
            load(f"npz:{path}")
    with pytest.raises(DataError, match="cannot read"):
        load(f"npz:{tmp_path}")


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 4), }\n"
    with pytest.raises(DataError, match="is no NumPy array: found the first bytes"):
        load(_archive(tmp_path / "set.npz", header, bytes(32), magic=b"\x93NUMPX\x01\x00"))


def test_a_compressed_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.data import reading

    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    images = np.zeros((2, 1024, 1024), np.uint8)
    spec = _save(tmp_path / "set.npz", compressed=True, images=images, labels=np.array([0, 1]))
    with pytest.raises(DataError, match="announces 2097152 bytes of data, expected at most 1048576"):
        load(spec)
    assert len(load(_save(tmp_path / "plain.npz", images=images, labels=np.array([0, 1])))) == 2, "mapped: no bound"


@pytest.mark.parametrize("value", [9.007199254740992e15, -1e300, 1.5, 2.0])
def test_a_table_of_one_value_has_a_range(tmp_path: Path, value: float) -> None:
    data = load(_save(tmp_path / "a.npz", images=np.full((40, 3), value), labels=_labels(40)))
    assert data.restored(Preprocessing()).range == data.range
    low, high = data.range
    assert low + float(data.images[0, 0, 0, 0]) * (high - low) == value


def test_images_without_labels_are_taken_where_they_are_allowed(tmp_path: Path) -> None:
    images, labels = random_bytes(COUNT, 1, 5, 5), _labels()
    spec = _save(tmp_path / "a.npz", x_train=images, x_test=images, y_test=labels)
    data = load(spec, split="train", allow_unlabelled=True)
    assert not data.labelled
    assert set(data.labels.tolist()) == {0}
    test = load(spec, split="test", allow_unlabelled=True)
    assert test.labelled
    assert (test.labels == labels).all()
    with pytest.raises(DataError, match="has the parts test, no train part"):
        load(spec, split="train")
    with pytest.raises(DataError, match=r"holds x_train, expected .* --labels-from model"):
        load(_save(tmp_path / "b.npz", x_train=images))
