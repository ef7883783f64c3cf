"""An .npz file of images and labels: `npz:FILE`, `npz:FILE?layout=NHWC`.

Names: images and labels, or x and y, for a file of one part; x_train / y_train, x_val / y_val, x_test / y_test
(or train_images / train_labels and so on) for a file of several. Optional: class_names, an array of text.

Images: (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels; whole numbers from 0 to 255, or floats from
0 to 1. Labels: (N,) or (N, 1), whole numbers from 0.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.block import Block
from jr_onnx.data.npy import read_member
from jr_onnx.data.preprocessing import Layout
from jr_onnx.data.reading import check_labels, reading
from jr_onnx.data.splits import Part, index_fractions
from jr_onnx.errors import DataError

_NAMES: Final[dict[Part, tuple[tuple[str, str], ...]]] = {
    "one": (("images", "labels"), ("x", "y"), ("X", "y")),
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_val", "y_val"), ("x_validation", "y_validation"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_CHANNELS: Final = (1, 3, 4)
MOST_CLASSES: Final = 100_000


class Npz:
    """One .npz file.

    Args:
        path: The file.
        layout: Order of the axes of the images; None finds it from the shape.

    Raises:
        DataError: Not such a file, or without a known pair of names.
    """

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self._path = path
        self._layout = layout
        self.name = f"npz:{path.name}"
        with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        present = {member.removesuffix(".npy") for member in members if member.endswith(".npy")}
        self._pairs: dict[Part, tuple[str, str]] = {}
        for part, pairs in _NAMES.items():
            for pair in pairs:
                if present.issuperset(pair):
                    self._pairs.setdefault(part, pair)
        self._has_class_names = "class_names" in present
        if not self._pairs:
            found = ", ".join(sorted(present)[:8]) or "nothing"
            raise DataError(f"{path} holds {found}, expected images and labels, x and y, or x_test and y_test")
        self.parts: frozenset[Part] = frozenset({"one"}) if "one" in self._pairs else frozenset(self._pairs)

    def block(self, part: Part) -> Block:
        """Open one part.

        Raises:
            DataError: An array is malformed, or images and labels do not fit.
        """
        images_name, labels_name = self._pairs[part]
        path = self._path
        with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
            images = self._planes(read_member(archive, images_name, path), images_name)
            labels = _labels(read_member(archive, labels_name, path), f"{path}: {labels_name}")
            names = read_member(archive, "class_names", path) if self._has_class_names else None
        if len(images) != len(labels):
            raise DataError(f"{path} holds {len(images)} {images_name} and {len(labels)} {labels_name}")
        class_names = _class_names(names, labels, path)
        check_labels(path, labels, len(class_names))

        def read(chosen: NDArray[np.int64]) -> NDArray[Any]:
            return _pixels(images[chosen], f"{path}: {images_name}")

        scale = 1.0 if images.dtype.kind == "f" else 255.0
        return Block(labels, read, scale, class_names, index_fractions(len(labels)))

    def _planes(self, images: NDArray[Any], name: str) -> NDArray[Any]:
        where = f"{self._path}: {name}"
        if images.dtype.kind not in "iuf":
            raise DataError(f"{where} has elements of type {images.dtype}, expected bytes or floats")
        if images.ndim == 3:
            return images[:, None]
        if images.ndim != 4:
            raise DataError(f"{where} has the shape {images.shape}, expected (N, H, W), (N, C, H, W) or (N, H, W, C)")
        layout = self._layout or _find_layout(images.shape, where)
        planes = images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
        if planes.shape[1] not in _CHANNELS:
            raise DataError(f"{where} has {planes.shape[1]} channels in the layout {layout}, expected 1, 3 or 4")
        return planes


def _find_layout(shape: tuple[int, ...], where: str) -> Layout:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last:
        raise DataError(
            f"{where} has the shape {shape}, which may be NCHW or NHWC", hint="Add ?layout=NCHW or ?layout=NHWC"
        )
    if not first and not last:
        raise DataError(f"{where} has the shape {shape}, expected an axis of 1, 3 or 4 channels")
    return "NCHW" if first else "NHWC"


def _pixels(images: NDArray[Any], where: str) -> NDArray[Any]:
    low, high = images.min(), images.max()
    if images.dtype.kind == "f":
        if np.isnan(low):  # one NaN makes the least value NaN
            raise DataError(f"{where} has NaN in {int(np.isnan(images).sum())} places, expected numbers from 0 to 1")
        if not (low >= 0.0 and high <= 1.0):
            raise DataError(
                f"{where} has floats from {low} to {high}, expected 0 to 1", hint="Divide by 255, or store bytes"
            )
        return np.ascontiguousarray(images, dtype=np.float32)
    if low < 0 or high > 255:
        raise DataError(f"{where} has whole numbers from {low} to {high}, expected 0 to 255")
    return np.ascontiguousarray(images, dtype=np.uint8)


def _labels(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} has the shape {labels.shape} and the type {labels.dtype}, expected (N,) whole numbers"
        )
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise DataError(f"{where} has labels from {labels.min()} to {labels.max()}, expected 0 to {MOST_CLASSES - 1}")
    return labels.astype(np.int64)


def _class_names(names: NDArray[Any] | None, labels: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    if names is None:
        return tuple(str(number) for number in range(int(labels.max()) + 1))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: class_names has the shape {names.shape} and the type {names.dtype}, expected text in one axis"
        )
    return tuple(str(name) for name in names)
