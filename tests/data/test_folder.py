from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.data import load
from jr_onnx.errors import DataError, MissingExtraError
from tests.data.builders import random_bytes

Image = pytest.importorskip("PIL.Image", reason="picture folders need Pillow")


def _picture(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def _classes(folder: Path, count: int = 12, *, shape: tuple[int, ...] = (6, 5, 3)) -> dict[str, np.ndarray]:
    arrays = {}
    for seed, name in enumerate(("cat", "dog", "emu")):
        for number in range(count):
            arrays[f"{name}/{number:02}.png"] = random_bytes(*shape, seed=100 * seed + number)
            _picture(folder / name / f"{number:02}.png", arrays[f"{name}/{number:02}.png"])
    return arrays


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
def test_class_folders_give_the_pixels_that_were_saved(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = _classes(tmp_path, shape=shape)
    test, validation = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}", split="validation")
    assert test.class_names == ("cat", "dog", "emu")
    assert len(test) + len(validation) == len(arrays)
    assert not set(test.indices) & set(validation.indices)
    order = [f"{name}/{number:02}.png" for number in range(12) for name in test.class_names]
    for part in (test, validation):
        for position, index in enumerate(part.indices):
            expected = arrays[order[index]]
            planes = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
            assert np.array_equal(part.pixels[position], planes)
            assert part.labels[position] == test.class_names.index(order[index].split("/")[0])


def _named(folder: Path, names: list[str], count: int = 4) -> str:
    for name in names:
        for number in range(count):
            _picture(folder / name / f"{number}.png", np.full((4, 4), 200 + len(name), np.uint8))
    return f"folder:{folder}"


def _label_of(spec: str, split: str = "test") -> dict[str, int]:
    """Return class name -> label, as the pictures have them."""
    data = load(spec, split=split)
    return {data.class_names[label]: int(label) for label in data.labels}


def test_folders_named_by_numbers_are_classes_in_numerical_order(tmp_path: Path) -> None:
    spec = _named(tmp_path, [str(number) for number in range(12)])
    assert _label_of(spec) == {str(number): number for number in range(12)}
    (note,) = load(spec).notes
    assert note.startswith("classes of the folders: 0 = 0, 1 = 1, 2 = 2, ")
    assert note.endswith(" 10 = 10, 11 = 11")
    as_text = load(spec + "?order=text")
    assert as_text.class_names == ("0", "1", "10", "11", *"23456789")
    assert "2 = 10" in as_text.notes[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1", "2", "10"], {"1": 0, "2": 1, "10": 2}),  # from 1: their order
        (["0", "2", "9"], {"0": 0, "2": 2, "9": 9}),  # from 0: gaps are classes without pictures
        (["00", "01", "10"], {"00": 0, "01": 1, "10": 10}),
        (["0", "200000"], {"0": 0, "200000": 1}),
        (["10", "9", "a"], {"10": 0, "9": 1, "a": 2}),  # not all are numbers: as text
    ],
)
def test_other_numbers(tmp_path: Path, names: list[str], expected: dict[str, int]) -> None:
    assert _label_of(_named(tmp_path, names)) == expected


def test_two_names_of_one_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the class folders 01 and 1 are one number"):
        load(_named(tmp_path, ["0", "1", "01"]))


def test_a_part_that_lacks_a_class_moves_no_other_class(tmp_path: Path) -> None:
    _named(tmp_path / "train", ["ant", "bee", "cat"])
    _named(tmp_path / "test", ["ant", "cat"])
    spec = f"folder:{tmp_path}"
    assert _label_of(spec) == {"ant": 0, "cat": 2}
    assert load(spec).class_names == ("ant", "bee", "cat")


def test_many_classes_are_shown_in_short(tmp_path: Path) -> None:
    (note,) = load(_named(tmp_path, [f"n{number:03}" for number in range(30)], 1)).notes
    assert note.count("=") == 11
    assert note.endswith("9 = n009, ..., 29 = n029")


def test_the_front_of_the_split_holds_all_classes(tmp_path: Path) -> None:
    _classes(tmp_path)
    assert set(load(f"folder:{tmp_path}", limit=6).labels) == {0, 1, 2}


def test_only_the_chosen_pictures_are_decoded(tmp_path: Path) -> None:
    _classes(tmp_path)
    (tmp_path / "emu" / "11.png").write_bytes(b"damaged")
    assert len(load(f"folder:{tmp_path}", limit=3)) == 3
    with pytest.raises(DataError, match=r"cannot read .*11.png as a PNG or JPEG picture"):
        load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}", split="validation")


def test_adding_a_picture_moves_no_other_one_to_another_split(tmp_path: Path) -> None:
    _classes(tmp_path)
    spec = f"folder:{tmp_path}"
    before = {image.tobytes() for image in load(spec, split="validation").pixels}
    _picture(tmp_path / "cat" / "00a.png", random_bytes(6, 5, 3, seed=999))
    after = {image.tobytes() for image in load(spec, split="validation").pixels}
    assert before <= after
    assert len(after) <= len(before) + 1


def test_parts_by_their_names(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("val", 3), ("test", 4)):
        _classes(tmp_path / part, count)
    counts = [len(load(f"folder:{tmp_path}", split=split)) for split in ("train", "validation", "test")]
    assert counts == [60, 9, 12]
    _classes(tmp_path / "validation", 1)
    with pytest.raises(DataError, match="both val and validation"):
        load(f"folder:{tmp_path}")


def test_a_list_of_labels(tmp_path: Path) -> None:
    arrays = {f"{number}.png": random_bytes(4, 4, seed=number) for number in range(20)}
    for name, array in arrays.items():
        _picture(tmp_path / "pictures" / name, array)
    lines = ["file,label,note"] + [f"pictures/{name},{number % 3},x" for number, name in enumerate(arrays)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    data = load(f"folder:{tmp_path}")
    assert np.array_equal(data.labels, data.indices % 3)
    for position, index in enumerate(data.indices):
        assert np.array_equal(data.pixels[position, 0], arrays[f"{index}.png"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has the columns None, expected file and label"),
        ("name,class\na.png,0\n", "expected file and label"),
        ("file,label\n", "lists no picture"),
        ("file,label\na.png,cat\n", "line 2: found the label 'cat', expected a whole number"),
        ("file,label\na.png,-1\n", "line 2: found the label '-1'"),
        ("file,label\na.png,1.0\n", "line 2: found the label '1.0'"),
        ("file,label\na.png,\n", "line 2: found the label ''"),
        ("file,label\na.png\n", "line 2: found the label ''"),
        ("file,label\na.png,²\n", "line 2: found the label '²'"),
        ("file,label\na.png,100000\n", "line 2: found the label '100000'"),
        (f"file,label\na.png,{'9' * 5000}\n", "line 2: found the label|cannot read"),
        ("file,label\n../a.png,0\n", "leaves the folder"),
        ("file,label\n/etc/passwd,0\n", "leaves the folder"),
        ("file,label\na.png,0\n./a.png,1\n", "line 3: './a.png' is listed twice"),
        ("file,label\nnone.png,0\n", "none.png does not exist"),
        ('file,label\n"a.png,0\n', "cannot read .*labels.csv"),
        ("file,label\na\0.png,0\n", "cannot read|does not exist|label"),
    ],
)
def test_a_malformed_list_names_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        # One of the two splits holds the only picture.
        _ = [load(f"folder:{tmp_path}", split=split) for split in _nonempty_first(tmp_path)]


def _nonempty_first(folder: Path) -> list[str]:
    try:
        load(f"folder:{folder}", split="test")
    except DataError as error:
        if "is empty: none of" in error.message:
            return ["validation"]
    return ["test"]


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot read .*labels.csv as a list of labels"):
        load(f"folder:{tmp_path}")


def test_folders_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="is empty, expected one sub-folder per class"):
        load(f"folder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"class folder .*cat is empty"):
        load(f"folder:{tmp_path}")
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes.txt is no PNG or JPEG file"):
        load(f"folder:{tmp_path}")
    (tmp_path / "stray.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"stray.png stands beside the class folders"):
        load(f"folder:{tmp_path}")


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    arrays = _classes(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / ".thumbs").write_bytes(b"x")
    spec = f"folder:{tmp_path}"
    assert len(load(spec)) + len(load(spec, split="validation")) == len(arrays)


def _refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = [load(f"folder:{folder}", split=split) for split in ("test", "validation")]


def test_pictures_must_be_alike(tmp_path: Path) -> None:
    _classes(tmp_path)
    odd = tmp_path / "cat" / "03.png"
    _picture(odd, random_bytes(7, 5, 3))
    _refused(tmp_path, r"03.png has the shape \(3, 7, 5\), .* has \(3, 6, 5\), expected one shape")
    _picture(odd, random_bytes(6, 5))
    _refused(tmp_path, r"has the shape \(1, 6, 5\)")
    _picture(odd, random_bytes(6, 5, 4))
    _refused(tmp_path, "picture of mode RGBA, expected opaque gray or colour with 8 bits")
    _picture(odd, random_bytes(6, 5).astype(np.uint16) * 256)
    _refused(tmp_path, "picture of mode I;16")


def test_jpeg_is_read_and_a_disguise_is_not(tmp_path: Path) -> None:
    _classes(tmp_path, shape=(8, 8, 3))
    flat = np.full((8, 8, 3), 128, np.uint8)
    (tmp_path / "cat" / "03.png").unlink()
    _picture(tmp_path / "cat" / "03.JPG", flat, format="JPEG")
    parts = [load(f"folder:{tmp_path}", split=split) for split in ("test", "validation")]
    assert sum(bool((image == 128).all()) for part in parts for image in part.pixels) == 1
    Image.fromarray(flat).save(tmp_path / "cat" / "04.png", format="GIF")
    _refused(tmp_path, "cannot read .*04.png as a PNG or JPEG picture")


def test_a_picture_that_announces_gigapixels_is_not_decoded(tmp_path: Path) -> None:
    _classes(tmp_path)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "dog" / "05.png").write_bytes(bomb)
    _refused(tmp_path, "cannot read .*05.png|expected at most")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with pytest.raises(MissingExtraError, match=r"jr-onnx\[attack\]"):
        load(f"folder:{tmp_path}")


def test_pictures_without_labels_are_taken_where_they_are_allowed(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 3)):
        (tmp_path / part).mkdir()
        for number in range(count):
            _picture(tmp_path / part / f"{number:02}.png", random_bytes(4, 4, seed=number))
    data = load(f"folder:{tmp_path}", split="test", allow_unlabelled=True)
    assert not data.labelled
    assert len(data) == 3
    assert (data.pixels[1, 0] == random_bytes(4, 4, seed=1)).all()
    with pytest.raises(DataError, match=r"stands beside the class folders.*--labels-from model"):
        load(f"folder:{tmp_path}", split="test")
    (tmp_path / "test" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="stands beside the class folders"):
        load(f"folder:{tmp_path}", split="test", allow_unlabelled=True)
