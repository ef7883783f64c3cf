"""Labelled images as loaded: pixels stay in the file's own type until floats are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jr_onnx.data.labels import to_classes
from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.element_types import Array
from jr_onnx.errors import DataError

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images of one split.

    Attributes:
        pixels: (N, C, H, W), unsigned integers or float32, divided by `scale` to reach the pixel scale [0, 1].
        scale: What the brightest pixel is in `pixels`: 255 for bytes, 1 for floats.
        labels: (N,) int64, each in [0, len(class_names)).
        name: Where the data came from, for reports: the specification and the split.
        class_names: One name per class.
        indices: (N,) int64, the position of each image in its source.
        range: What 0 and 1 stand for in the source, where the model is to get the source's own values (see `restored`).
        notes: What the reader of results should know of how the data was understood.
        labelled: Whether the source has labels; where it has none, all are 0, and mean nothing.
    """

    pixels: Array
    scale: float
    labels: NDArray[np.int64]
    name: str
    class_names: tuple[str, ...]
    indices: NDArray[np.int64]
    range: tuple[float, float] = (0.0, 1.0)
    notes: tuple[str, ...] = ()
    labelled: bool = True

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            DataError: They do not.
        """
        if self.pixels.ndim != 4:
            raise DataError(f"{self.name}: found images of shape {self.pixels.shape}, expected (N, C, H, W)")
        if not self.scale > 0:
            raise DataError(f"{self.name}: found the scale {self.scale}, expected a positive number")
        if self.pixels.dtype.kind != "u" and self.pixels.dtype != np.float32:
            raise DataError(f"{self.name}: found pixels of type {self.pixels.dtype}, expected bytes or float32")
        count = len(self.pixels)
        if self.labels.shape != (count,) or self.indices.shape != (count,):
            raise DataError(
                f"{self.name}: found {count} images, {len(self.labels)} labels and {len(self.indices)} indices, "
                "expected as many of each"
            )
        if count and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            bad = int(np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))[0])
            raise DataError(
                f"{self.name}: image {bad} has the label {int(self.labels[bad])}, "
                f"expected 0 to {len(self.class_names) - 1}"
            )

    @classmethod
    def from_arrays(
        cls, images: ArrayLike, labels: ArrayLike, *, name: str = "arrays", class_names: tuple[str, ...] = ()
    ) -> ImageData:
        """Wrap images in pixel scale [0, 1], (N, C, H, W), or vectors (N, F), and their labels (see `to_classes`).

        Raises:
            DataError: The images have other axes, are not finite or outside [0, 1], or the labels do not fit.
        """
        pixels = np.ascontiguousarray(images, dtype=np.float32)
        if pixels.ndim == 2:
            pixels = pixels[:, None, None]
        if pixels.size and not (pixels.min() >= 0.0 and pixels.max() <= 1.0):  # NaN fails the comparison too
            raise DataError(
                f"{name}: found pixels from {pixels.min()} to {pixels.max()}, expected 0 to 1",
                hint="Divide bytes by 255; add 1 to values from -1 to 1, and halve them",
            )
        numbers, count = to_classes(np.asarray(labels), f"{name}: labels")
        if not class_names:
            class_names = tuple(str(number) for number in range(count))
        return cls(pixels, 1.0, numbers, name, class_names, np.arange(len(pixels), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """All images as (N, C, H, W) float32 in [0, 1], converted on first use; see `batches` for less memory."""
        return self._convert(self.pixels)

    def batches(self, size: int = _CHUNK) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield (images, labels) of at most `size` images, converted one batch at a time.

        Raises:
            DataError: `size` is not positive.
        """
        if size < 1:
            raise DataError(f"found a batch size of {size}, expected 1 or more")
        for start in range(0, len(self), size):
            yield self._convert(self.pixels[start : start + size]), self.labels[start : start + size]

    def take(self, positions: ArrayLike) -> ImageData:
        """Return the images at `positions` (N,) of this set, in that order."""
        chosen = np.asarray(positions)
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen], indices=self.indices[chosen])

    def restored(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return a preprocessing before which the source's own values come back, unless it has a range of its own."""
        return preprocessing if preprocessing.range != (0.0, 1.0) else replace(preprocessing, range=self.range)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, scale, pixels, labels and indices: two equal digests are the same images in order.

        It does not depend on how the file was stored (compressed or not), and it covers this selection only.
        """
        digest = hashlib.sha256(f"{self.pixels.shape} {self.pixels.dtype.str} {self.scale!r}".encode())
        for start in range(0, len(self), _CHUNK):
            digest.update(self.pixels[start : start + _CHUNK].tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(self.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def _convert(self, pixels: Array) -> NDArray[np.float32]:
        if self.scale == 1.0:
            return np.ascontiguousarray(pixels, dtype=np.float32)
        # Division, not multiplication by the reciprocal: 255/255 must be exactly 1.
        return np.ascontiguousarray(np.divide(pixels, np.float32(self.scale), dtype=np.float32))
