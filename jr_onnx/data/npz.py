"""An .npz file of images or vectors and labels: `npz:FILE`, `npz:FILE?layout=NHWC`, `npz:FILE?range=-1,1`.

Names: images and labels, or x and y, for a file of one part; x_train / y_train, x_val / y_val, x_test / y_test
(or train_images / train_labels and so on) for a file of several. Optional: class_names, an array of text.

Images: (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels; whole numbers from 0 to 255, floats from
0 to 1, or numbers of any range that is said. Labels: see `labels`.

Vectors: (N, F), which become images of one row, (N, 1, 1, F). Bytes are pixels. Other numbers outside 0 to 1 are
features: the model gets them as they are, and attacks see them in shares of the range that the whole file has.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.block import Block
from jr_onnx.data.labels import UNLABELLED_HINT, to_classes
from jr_onnx.data.npy import read_member
from jr_onnx.data.preprocessing import Layout
from jr_onnx.data.reading import check_labels, reading
from jr_onnx.data.splits import Part, index_fractions
from jr_onnx.element_types import Array
from jr_onnx.errors import DataError

_NAMES: Final[dict[Part, tuple[tuple[str, str], ...]]] = {
    "one": (
        ("images", "labels"),
        ("x", "y"),
        ("X", "y"),
        ("X", "Y"),
        ("data", "labels"),
        ("features", "labels"),
        ("arr_0", "arr_1"),
    ),
    "train": (("x_train", "y_train"), ("X_train", "y_train"), ("train_images", "train_labels")),
    "validation": (
        ("x_val", "y_val"),
        ("X_val", "y_val"),
        ("x_validation", "y_validation"),
        ("val_images", "val_labels"),
    ),
    "test": (("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels")),
}
_CHANNELS: Final = (1, 3, 4)
_UNIT: Final = (0.0, 1.0)
_ZIP: Final = b"PK"


class Npz:
    """One .npz file.

    Args:
        path: The file.
        layout: Order of the axes of the images; None finds it from the shape.
        range: What stands for black and for full brightness, which are brought to 0 and 1; None for 0 and 255 of whole
            numbers, 0 and 1 of floats.
        allow_unlabelled: Whether a part may be images alone.

    Raises:
        DataError: Not such a file, without a known pair of names, or the range is none.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout | None = None,
        range: tuple[float, float] | None = None,  # noqa: A002 - the word of the specification
        *,
        allow_unlabelled: bool = False,
    ) -> None:
        self._path = path
        self._layout = layout
        self._range = range
        self.name = f"npz:{path.name}"
        with reading(path, "an .npz file", _ZIP), zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        present = {member.removesuffix(".npy") for member in members if member.endswith(".npy")}
        self._pairs: dict[Part, tuple[str, str | None]] = {}
        for part, pairs in _NAMES.items():
            for pair in pairs:
                if present.issuperset(pair):
                    self._pairs.setdefault(part, pair)
            for images_name, _ in pairs if allow_unlabelled else ():
                if images_name in present:
                    self._pairs.setdefault(part, (images_name, None))
        self._has_class_names = "class_names" in present
        if not self._pairs:
            found = ", ".join(sorted(present)[:8]) or "nothing"
            raise DataError(
                f"{path} holds {found}, expected images and labels, x and y, or x_test and y_test",
                hint="" if allow_unlabelled or not _has_images(present) else UNLABELLED_HINT,
            )
        self.parts: frozenset[Part] = frozenset({"one"}) if "one" in self._pairs else frozenset(self._pairs)

    def block(self, part: Part) -> Block:
        """Open one part.

        Raises:
            DataError: An array is malformed, or images and labels do not fit.
        """
        images_name, labels_name = self._pairs[part]
        path = self._path
        with reading(path, "an .npz file", _ZIP), zipfile.ZipFile(path) as archive:
            images = self._planes(read_member(archive, images_name, path), images_name)
            labels, count = np.zeros(len(images), dtype=np.int64), 1
            if labels_name is not None:
                labels, count = to_classes(read_member(archive, labels_name, path), f"{path}: {labels_name}")
            names = read_member(archive, "class_names", path) if self._has_class_names else None
        if len(images) != len(labels):
            raise DataError(f"{path} holds {len(images)} {images_name} and {len(labels)} {labels_name}")
        class_names = _class_names(names, count, path)
        check_labels(path, labels, len(class_names))
        features = self._features(images)
        scaled = self._range or features

        def read(chosen: NDArray[np.int64]) -> Array:
            return _pixels(images[chosen], f"{path}: {images_name}", scaled)

        scale = 1.0 if scaled is not None or images.dtype.kind == "f" else 255.0
        fractions = index_fractions(len(labels))
        return Block(labels, read, scale, class_names, fractions, features or _UNIT, labelled=labels_name is not None)

    def _features(self, images: Array) -> tuple[float, float] | None:
        """Return the range of a file of features; None where its values are pixels or their range was said."""
        if self._range is not None or images.shape[1:3] != (1, 1) or images.dtype == np.uint8:
            return None
        with reading(self._path, "an .npz file", _ZIP), zipfile.ZipFile(self._path) as archive:
            parts = [read_member(archive, name, self._path) for name, _ in self._pairs.values()]
        low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
        if (low >= 0 and high <= 1) or not math.isfinite(high - low):
            return None
        if low == high:  # any range that holds it will do; not low + 1 for large values, which may round to low
            return (low, low + 1.0) if abs(low) < 1 else (min(low, 0.0), max(low, 0.0))
        return low, high

    def _planes(self, images: Array, name: str) -> Array:
        where = f"{self._path}: {name}"
        if images.dtype.kind not in "iuf":
            raise DataError(f"{where} has elements of type {images.dtype}, expected bytes or floats")
        if images.ndim == 2:
            return images[:, None, None]
        if images.ndim == 3:
            return images[:, None]
        if images.ndim != 4:
            raise DataError(
                f"{where} has the shape {images.shape}, expected images (N, H, W), (N, C, H, W) or (N, H, W, C), or "
                "vectors (N, F)"
            )
        layout = self._layout or _find_layout(images.shape, where)
        planes = images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
        if planes.shape[1] not in _CHANNELS:
            raise DataError(f"{where} has {planes.shape[1]} channels in the layout {layout}, expected 1, 3 or 4")
        return planes


def _has_images(present: set[str]) -> bool:
    return any(images_name in present for pairs in _NAMES.values() for images_name, _ in pairs)


def _find_layout(shape: tuple[int, ...], where: str) -> Layout:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last:
        raise DataError(
            f"{where} has the shape {shape}, which may be NCHW or NHWC", hint="Add ?layout=NCHW or ?layout=NHWC"
        )
    if not first and not last:
        raise DataError(f"{where} has the shape {shape}, expected an axis of 1, 3 or 4 channels")
    return "NCHW" if first else "NHWC"


def _pixels(images: Array, where: str, scaled: tuple[float, float] | None) -> Array:
    """Return bytes, or float32 from 0 to 1; `scaled` is the range that is brought there."""
    low, high = images.min(), images.max()
    is_float = images.dtype.kind == "f"
    if is_float and not (np.isfinite(low) and np.isfinite(high)):  # one NaN makes the least value NaN
        bad = "NaN" if np.isnan(low) else "infinity"
        count = int((~np.isfinite(images)).sum())
        raise DataError(f"{where} has {bad} in {count} places, expected finite numbers", hint="Remove those items")
    least, most = scaled or (_UNIT if is_float else (0.0, 255.0))
    if low < least or high > most:
        kind = "floats" if is_float else "whole numbers"
        raise DataError(
            f"{where} has {kind} from {low} to {high}, expected {least:g} to {most:g}", hint=_remedy(low, high)
        )
    if scaled is not None:
        # In doubles, so that the ends become 0 and 1 and nothing lies beyond.
        return ((images.astype(np.float64) - least) / (most - least)).astype(np.float32)
    return np.ascontiguousarray(images, dtype=np.float32 if is_float else np.uint8)


def _remedy(low: float, high: float) -> str:
    """Say how to bring values to the pixel scale."""
    if -1 <= low < 0 and high <= 1:
        found = "-1,1"
    elif low >= 0 and high <= 16:  # the digits of scikit-learn
        found = "0,16"
    elif low >= 0 and high <= 255:
        found = "0,255"
    elif low >= 0 and high <= 65535:
        found = "0,65535"
    else:
        found = f"{math.floor(low)},{math.ceil(high)}"
    return (
        f"Say what black and full brightness are, for instance npz:FILE?range={found}, which brings them to 0 and 1; "
        f"if the model takes the values as they stand in the file, use the preprocessing range={found} too"
    )


def _class_names(names: Array | None, count: int, path: Path) -> tuple[str, ...]:
    if names is None:
        return tuple(str(number) for number in range(count))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: class_names has the shape {names.shape} and the type {names.dtype}, expected text in one axis"
        )
    return tuple(str(name) for name in names)
