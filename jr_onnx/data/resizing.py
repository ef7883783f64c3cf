"""Bring pictures to the size that a model takes: the shorter side first, then the centre, as torchvision's transforms.

Resize(resize), CenterCrop(size)        bilinear with antialiasing, on bytes; by Pillow
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.element_types import Array
from jr_onnx.errors import DataError, require

if TYPE_CHECKING:
    from PIL.Image import Image


class Resizing:
    """The resizing and cropping that a preprocessing asks for.

    Args:
        preprocessing: Its `size` and `resize` count; None asks for nothing.

    Raises:
        MissingExtraError: Something is asked for, and Pillow is not installed.
    """

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        size = preprocessing.size if preprocessing is not None else ()
        self._size = (size[0], size[1]) if size else None
        self._shorter = (preprocessing.resize if preprocessing is not None else 0) or max(size, default=0)
        self._pillow: Any = require("PIL.Image", "attack") if self else None

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return self._shorter > 0

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the result."""
        if not self:
            return height, width
        return self._size if self._size is not None else self._resized(height, width)

    def picture(self, picture: Image) -> Image:
        """Return a picture of Pillow, resized and cropped."""
        if not self:
            return picture
        height, width = self._resized(picture.height, picture.width)
        if (height, width) != (picture.height, picture.width):
            picture = picture.resize((width, height), self._pillow.Resampling.BILINEAR)
        if self._size is None or self._size == (height, width):
            return picture
        top, left = round((height - self._size[0]) / 2), round((width - self._size[1]) / 2)
        return picture.crop((left, top, left + self._size[1], top + self._size[0]))

    def planes(self, pixels: Array, name: str) -> Array:
        """Return pixels (N, C, H, W), bytes or float32, resized and cropped plane by plane.

        Args:
            pixels: The images.
            name: Name of the data, for the error.

        Raises:
            DataError: They are vectors, or of another type.
        """
        count, channels, height, width = pixels.shape
        if not self or (height, width) == self.shape(height, width) == self._resized(height, width):
            return pixels
        if channels == height == 1 or pixels.dtype not in (np.uint8, np.float32):
            raise DataError(f"{name}: found vectors, or pixels of type {pixels.dtype}, which cannot be resized")
        result = np.empty((count, channels, *self.shape(height, width)), pixels.dtype)
        for image, target in zip(pixels.reshape(-1, height, width), result.reshape(-1, *result.shape[2:]), strict=True):
            target[...] = np.asarray(self.picture(self._pillow.fromarray(image)))
        # Bilinear weights are positive and add up to 1, up to rounding.
        return np.clip(result, 0, 1) if pixels.dtype == np.float32 else result

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size whose shorter side is the requested one; the other is rounded down to whole pixels."""
        if not self:
            return height, width
        if height <= width:
            return self._shorter, max(self._shorter, self._shorter * width // height)
        return max(self._shorter, self._shorter * height // width), self._shorter
