"""MNIST, Fashion-MNIST and KMNIST in the IDX format, plain or gzip, in both spellings of the names.

magic: two zero bytes, type (8 = unsigned byte), number of axes; then each axis as a big-endian 32-bit number;
then the data. Images (N, H, W), labels (N,).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.block import Block
from jr_onnx.data.reading import (
    check_labels,
    check_memory,
    check_shape,
    find_folder,
    map_bytes,
    open_plain_or_gzip,
    read_exactly,
    reading,
)
from jr_onnx.data.splits import Part, index_fractions
from jr_onnx.errors import DataError

_STEMS: Final[dict[str, str]] = {"train": "train", "test": "t10k"}
_CLASSES: Final = tuple("0123456789")
_UNSIGNED_BYTE: Final = 8


class Mnist:
    """The four IDX files of a folder; torchvision's folder `MNIST/raw` is looked into as well.

    Raises:
        DataError: Not a folder, or without the files of either part.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = find_folder(folder, ("MNIST/raw", "raw"), "MNIST")
        self.name = "mnist"
        found: set[Part] = set()
        if self._find("train", "images"):
            found.add("train")
        if self._find("t10k", "images"):
            found.add("test")
        if not found:
            raise DataError(
                f"{self._folder} holds no MNIST file, expected t10k-images-idx3-ubyte or t10k-images.idx3-ubyte, "
                "plain or .gz, or the train files"
            )
        self.parts = frozenset(found)

    def block(self, part: Part) -> Block:
        """Open the train or the test part.

        Raises:
            DataError: A file is missing or malformed, or images and labels differ in number.
        """
        stem = _STEMS[part]
        images_path, labels_path = self._find(stem, "images"), self._find(stem, "labels")
        if images_path is None or labels_path is None:
            raise DataError(f"{self._folder} lacks the {'labels' if images_path else 'images'} of {stem}")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1).astype(np.int64)
        if len(images) != len(labels):
            raise DataError(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels")
        check_labels(labels_path, labels, len(_CLASSES))

        def read(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.asarray(images[chosen])[:, None]

        return Block(labels, read, 255.0, _CLASSES, index_fractions(len(labels)))

    def _find(self, stem: str, what: str) -> Path | None:
        axes = 3 if what == "images" else 1
        for joint in ("-", "."):
            for suffix in ("", ".gz"):
                path = self._folder / f"{stem}-{what}{joint}idx{axes}-ubyte{suffix}"
                if path.is_file():
                    return path
        return None


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes; a plain one is mapped, a gzip one decompressed within its announced size.

    Args:
        path: File; gzip where the name ends in .gz.
        axes: Number of axes that it must have.

    Raises:
        DataError: Another magic number, truncated, too long, empty, absurdly large.
    """
    with (
        reading(path, "an IDX file", b"\x1f\x8b" if path.suffix == ".gz" else b"\0"),
        open_plain_or_gzip(path) as stream,
    ):
        head = stream.read(4 + 4 * axes)
        if len(head) < 4 or head[:2] != b"\0\0":
            raise DataError(f"{path} is no IDX file: found the first bytes {head[:4].hex()}, expected 0000")
        if head[2] != _UNSIGNED_BYTE or head[3] != axes:
            raise DataError(
                f"{path} holds the IDX type {head[2]:#04x} with {head[3]} axes, expected bytes (0x08) with {axes}"
            )
        if len(head) < 4 + 4 * axes:
            raise DataError(f"{path} is truncated: found {len(head)} bytes, not even the header")
        shape = struct.unpack(f">{axes}I", head[4:])
        if path.suffix != ".gz":
            return map_bytes(path, len(head), shape)
        size = check_shape(path, shape, 1)
        check_memory(path, size)
        content = read_exactly(stream, size, path)
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
