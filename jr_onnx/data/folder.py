"""A folder of PNG and JPEG pictures: one sub-folder per class, or a file labels.csv with the columns file and label.

    DIR/cat/1.png DIR/dog/2.png              one part; classes in the order of their names
    DIR/0/1.png DIR/2/2.png DIR/10/3.png     names that are all numbers count as numbers, see `_numbered`
    DIR/train/cat/1.png DIR/test/cat/2.png   parts, where all sub-folders are named train, validation (or val), test
    DIR/labels.csv                           one part; labels are whole numbers from 0
    DIR/train/1.png DIR/test/1.png           pictures without labels, where they are allowed

All pictures are of one size, unless the preprocessing gives them one, and all gray or all in colour. Pictures are
decoded only when chosen, and class folders are taken in turn (the first picture of each class, then the second): any
front part is balanced.
The split goes by a picture's path, not by its position: adding pictures moves no other one.
"""

from __future__ import annotations

import csv
from itertools import chain, pairwise, zip_longest
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.block import Block
from jr_onnx.data.labels import MOST_CLASSES, UNLABELLED_HINT
from jr_onnx.data.reading import check_memory, check_shape, find_folder, reading
from jr_onnx.data.resizing import Resizing
from jr_onnx.data.splits import Part, name_fractions
from jr_onnx.errors import DataError, require

_SUFFIXES: Final = (".png", ".jpg", ".jpeg")
_MARKS: Final = (b"\x89PNG", b"\xff\xd8")
_PART_NAMES: Final[dict[str, Part]] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_LABELS: Final = "labels.csv"
_MODES: Final = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_LARGEST_LIST: Final = 256 << 20


_SHOWN: Final = 12


class Folder:
    """A folder of pictures.

    Args:
        folder: Where it is.
        resizing: What is done to every picture.
        by_text: Whether class folders named by numbers are ordered as text, 0, 1, 10, 2, as torchvision's ImageFolder
            does.
        allow_unlabelled: Whether pictures may lie in a part without class folders and labels.

    Raises:
        DataError: Not a folder, empty, or with files of another kind in it.
        MissingExtraError: Pillow is not installed.
    """

    def __init__(
        self,
        folder: Path,
        resizing: Resizing | None = None,
        *,
        by_text: bool = False,
        allow_unlabelled: bool = False,
    ) -> None:
        self._resizing = resizing or Resizing(None)
        self._by_text, self._allow_unlabelled = by_text, allow_unlabelled
        self._pillow = require("PIL.Image", "attack")
        self._folder = find_folder(folder, (), "picture")
        self.name = f"folder:{self._folder.resolve().name}"
        self._parts = self._find_parts()
        self.parts: frozenset[Part] = frozenset(self._parts)

    def block(self, part: Part) -> Block:
        """List the pictures of a part; none is opened yet.

        Raises:
            DataError: A class is empty, a file is of another kind, labels.csv is malformed.
        """
        folder = self._parts[part]
        notes: tuple[str, ...] = ()
        labelled = True
        with reading(folder, "a folder of pictures"):
            if (folder / _LABELS).is_file():
                names, labels = _read_list(folder)
                class_names = tuple(str(number) for number in range(int(labels.max()) + 1))
            elif self._allow_unlabelled and (names := _pictures(folder)):
                labelled, labels, class_names = False, np.zeros(len(names), dtype=np.int64), ("0",)
            else:
                numbers, class_names = self._classes()
                names, labels = _list_classes(folder, numbers)
                notes = (_mapping(numbers),)

        def read(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
            return decode(self._pillow, [folder / names[position] for position in chosen], self._resizing)

        return Block(labels, read, 255.0, class_names, name_fractions(names), notes=notes, labelled=labelled)

    def _classes(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """Return the class of every class folder of any part, and the names of all classes."""
        found: set[str] = set()
        for folder in self._parts.values():
            if not (folder / _LABELS).is_file():
                found |= {path.name for path in _visible(folder) if path.is_dir()}
        names = sorted(found)
        if not self._by_text and names and all(_is_number(name) for name in names):
            return _numbered(names)
        return {name: number for number, name in enumerate(names)}, tuple(names)

    def _find_parts(self) -> dict[Part, Path]:
        below = _visible(self._folder)
        names = {path.name for path in below if path.is_dir()}
        if names and names <= _PART_NAMES.keys():
            parts: dict[Part, Path] = {}
            for name in sorted(names):
                if _PART_NAMES[name] in parts:
                    raise DataError(f"{self._folder} has both val and validation, expected one of them")
                parts[_PART_NAMES[name]] = self._folder / name
            return parts
        return {"one": self._folder}


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _numbered(names: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number folders that are named by numbers: from 0 on the number is the class, else their order is.

    So 0 and 2 without a 1 keep their places (a test set need not show every class), and 1 to 10 become 0 to 9.

    Raises:
        DataError: Two names are one number.
    """
    numbers = sorted((int(name), name) for name in names)
    twice = next((pair for pair in pairwise(numbers) if pair[0][0] == pair[1][0]), None)
    if twice is not None:
        raise DataError(f"the class folders {twice[0][1]} and {twice[1][1]} are one number", hint="Rename one of them")
    if numbers[0][0] == 0 and numbers[-1][0] < MOST_CLASSES:
        known = dict(numbers)
        return {name: number for number, name in numbers}, tuple(
            known.get(number, str(number)) for number in range(numbers[-1][0] + 1)
        )
    ordered = tuple(name for _, name in numbers)
    return {name: place for place, name in enumerate(ordered)}, ordered


def _mapping(numbers: dict[str, int]) -> str:
    """Say which folder is which class."""
    pairs = [f"{number} = {name}" for name, number in sorted(numbers.items(), key=lambda item: item[1])]
    shown = pairs if len(pairs) <= _SHOWN else [*pairs[: _SHOWN - 2], "...", pairs[-1]]
    return f"classes of the folders: {', '.join(shown)}"


def decode(pillow: ModuleType, paths: list[Path], resizing: Resizing | None = None) -> NDArray[np.uint8]:
    """Decode pictures of one size and kind into (N, C, H, W) bytes.

    Args:
        pillow: The module PIL.Image.
        paths: PNG and JPEG files.
        resizing: What is done to every one.

    Raises:
        DataError: One cannot be decoded, is of another size or kind, is transparent, or has more than 8 bits.
    """
    result = np.empty((0,), dtype=np.uint8)
    for position, path in enumerate(paths):
        expected = (paths[0], result.shape[1:]) if position else None
        planes = _decode_one(pillow, path, expected, resizing or Resizing(None))
        if position == 0:
            check_memory(path.parent, check_shape(path, (len(paths), *planes.shape), 1))
            result = np.empty((len(paths), *planes.shape), dtype=np.uint8)
        result[position] = planes
    return result


def _decode_one(
    pillow: ModuleType, path: Path, expected: tuple[Path, tuple[int, ...]] | None, resizing: Resizing
) -> NDArray[np.uint8]:
    with (
        reading(path, "a PNG or JPEG picture", (b"\x89PNG", b"\xff\xd8")),
        pillow.open(path, formats=("PNG", "JPEG")) as picture,
    ):
        mode = _MODES.get(picture.mode)
        if mode is None or "transparency" in picture.info:
            raise DataError(
                f"{path} is a picture of mode {picture.mode}, expected opaque gray or colour with 8 bits",
                hint="Convert it first",
            )
        # The header's size is checked before a pixel is decoded.
        channels = 1 if mode == "L" else 3
        check_memory(path, check_shape(path, (channels, picture.height, picture.width), 1))
        shape = (channels, *resizing.shape(picture.height, picture.width))
        check_memory(path, check_shape(path, shape, 1))
        if expected is not None and shape != expected[1]:
            hint = "Convert the pictures to one kind, gray or colour, first"
            if shape[0] == expected[1][0]:
                hint = "Bring them to one size with the preprocessing size=HEIGHT,WIDTH, which resizes and crops"
            raise DataError(
                f"{path} has the shape {shape}, {expected[0]} has {expected[1]}, expected one shape (C, H, W) for all",
                hint=hint,
            )
        array: NDArray[np.uint8] = np.asarray(resizing.picture(picture.convert(mode)), dtype=np.uint8)
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _pictures(folder: Path) -> list[str]:
    """Return the names of the pictures, if the folder holds nothing else; otherwise none."""
    found = _visible(folder)
    are_pictures = all(path.suffix.lower() in _SUFFIXES and path.is_file() for path in found)
    return [path.name for path in found] if are_pictures else []


def _list_classes(folder: Path, numbers: dict[str, int]) -> tuple[list[str], NDArray[np.int64]]:
    classes = sorted(_visible(folder), key=lambda path: (numbers.get(path.name, -1), path.name))
    for path in classes:
        if not path.is_dir():
            hint = UNLABELLED_HINT if _pictures(folder) else f"Remove it, or add {_LABELS}"
            raise DataError(f"{path} stands beside the class folders", hint=hint)
    if not classes:
        raise DataError(f"{folder} is empty, expected one sub-folder per class or {_LABELS}")
    columns: list[list[tuple[str, int]]] = []
    for one in classes:
        pictures = _visible(one)
        odd = [path for path in pictures if path.suffix.lower() not in _SUFFIXES or not path.is_file()]
        if odd:
            raise DataError(f"{odd[0]} is no PNG or JPEG file", hint="Remove it from the class folder")
        if not pictures:
            raise DataError(f"the class folder {one} is empty", hint="Remove it, or add pictures")
        columns.append([(f"{one.name}/{path.name}", numbers[one.name]) for path in pictures])
    turns = chain.from_iterable(zip_longest(*columns))
    pairs = [pair for pair in turns if pair is not None]
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    return [name for name, _ in pairs], labels


def _read_list(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    path = folder / _LABELS
    if path.stat().st_size > _LARGEST_LIST:
        raise DataError(f"{path} has {path.stat().st_size} bytes, expected at most {_LARGEST_LIST}")
    labels: dict[str, int] = {}
    with reading(path, "a list of labels"), path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream, strict=True)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path} has the columns {rows.fieldnames}, expected file and label")
        for row in rows:
            name, text = row["file"] or "", row["label"] or ""
            if not text.isascii() or not text.strip().isdigit() or int(text) >= MOST_CLASSES:
                raise DataError(
                    f"{path}, line {rows.line_num}: found the label {text!r}, "
                    f"expected a whole number from 0 to {MOST_CLASSES - 1}"
                )
            pure = PurePosixPath(name)
            if not name or pure.is_absolute() or ".." in pure.parts:
                raise DataError(f"{path}, line {rows.line_num}: {name!r} leaves the folder, expected a path inside it")
            if str(pure) in labels:
                raise DataError(f"{path}, line {rows.line_num}: {name!r} is listed twice")
            labels[str(pure)] = int(text)
    if not labels:
        raise DataError(f"{path} lists no picture")
    return list(labels), np.fromiter(labels.values(), dtype=np.int64)
