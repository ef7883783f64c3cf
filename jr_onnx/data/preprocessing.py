"""From pixel scale to a model's input, and back: range, mean and standard deviation, order of colours, memory layout.

    y = ((low + x * (high - low)) - mean) / std,   x in [0, 1], (N, C, H, W); y in `order` and `layout`

`mean` and `std` are in units of the range: the ImageNet mean of red is 123.675 for (0, 255) and 0.485 for (0, 1). They
stand for red, green, blue, whatever the order in which the model takes the channels.

Before all this, on loading, a picture is resized so that its shorter side is `resize`, and its centre of `size` is cut
out: the pixels that are attacked are those of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from jr_onnx.element_types import Array
from jr_onnx.errors import DataError
from jr_onnx.records import Record

Layout = Literal["NCHW", "NHWC"]
Order = Literal["RGB", "BGR"]
Number = TypeVar("Number", int, float)
_KEYS = ("mean", "std", "layout", "range", "order", "size", "resize")
_PARTS = ", ".join(f"{key}=" for key in _KEYS)


@dataclass(frozen=True, slots=True)
class Preprocessing(Record):
    """What stands between a picture and a model's input; see the module's docstring for the formula.

    Attributes:
        mean: Per channel, or one for all channels.
        std: Per channel, or one for all channels; positive.
        layout: Order of the axes of the model's input.
        range: What black and full brightness are before mean and std: (0, 1), (0, 255), (-1, 1).
        order: In which order the model takes the channels; that of the images is RGB.
        size: (height, width) of the centre that is cut out of a picture; empty to keep all of it.
        resize: What the shorter side of a picture is made before; 0 for the larger side of `size`, or for no change.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.preprocessing/1"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "NCHW"
    range: tuple[float, float] = (0.0, 1.0)
    order: Order = "RGB"
    size: tuple[int, ...] = ()
    resize: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot be inverted.

        Raises:
            DataError: Not finite, a standard deviation that is not positive, an empty range, unequal lengths, sizes
                that are invalid or contradict each other.
        """
        values = (*self.mean, *self.std, *self.range)
        if not self.mean or not self.std or not all(math.isfinite(value) for value in values):
            raise DataError(f"found mean {self.mean}, std {self.std}, range {self.range}, expected finite numbers")
        if min(self.std) <= 0:
            raise DataError(f"found the standard deviations {self.std}, expected positive numbers")
        if not self.range[0] < self.range[1]:
            raise DataError(f"found the range {self.range}, expected (low, high) with low < high")
        if 1 not in (len(self.mean), len(self.std)) and len(self.mean) != len(self.std):
            raise DataError(f"found {len(self.mean)} means and {len(self.std)} standard deviations")
        if self.layout not in ("NCHW", "NHWC"):
            raise DataError(f"found the layout {self.layout!r}, expected NCHW or NHWC")
        if self.order not in ("RGB", "BGR"):
            raise DataError(f"found the order {self.order!r}, expected RGB or BGR")
        if self.resize < 0 or (self.size and (len(self.size) != 2 or min(self.size) < 1)):
            raise DataError(f"found size {self.size}, resize {self.resize}, expected positive sizes in pixels")
        if self.size and 0 < self.resize < max(self.size):
            raise DataError(
                f"found resize={self.resize} and size={self.size[0]},{self.size[1]}, a crop larger than the picture",
                hint="resize is what the shorter side becomes before the crop, for instance size=224;resize=256",
            )

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a preset's name, parts such as `mean=0.5,0.5,0.5;std=0.25;layout=NHWC`, or both: `mnist;layout=NHWC`.

        Raises:
            DataError: None of them.
        """
        chosen = cls()
        fields: dict[str, Any] = {}
        for number, part in enumerate(filter(None, (piece.strip() for piece in text.split(";")))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if number == 0 and part in PRESETS:
                chosen = PRESETS[part]
            elif not equals or key not in _KEYS or key in fields:
                raise DataError(
                    f"found the preprocessing {text!r}, expected {', '.join(PRESETS)}, or the parts {_PARTS}, with ; "
                    "between them"
                )
            else:
                fields[key] = _field(key, value)
        return replace(chosen, **fields) if fields else chosen

    def affine(self, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (scale, offset), each (C,), so that y = x * scale + offset in exact arithmetic.

        Raises:
            DataError: The preprocessing has another number of channels.
        """
        mean, std = self._per_channel(channels)
        low, high = self.range
        return (high - low) / std, (low - mean) / std

    def apply(self, pixels: Array) -> NDArray[np.float32]:
        """Turn pixels (N, C, H, W) in [0, 1] into a model's input, float32, in `layout`.

        Raises:
            DataError: The pixels are not four-dimensional or have another number of channels.
        """
        _require_images(pixels)
        mean, std = (part.astype(np.float32)[:, None, None] for part in self._per_channel(pixels.shape[1]))
        low, high = np.float32(self.range[0]), np.float32(self.range[1])
        ready = (low + pixels.astype(np.float32, copy=False) * (high - low) - mean) / std
        if self.order == "BGR":
            ready = ready[:, ::-1]
        return np.ascontiguousarray(ready if self.layout == "NCHW" else ready.transpose(0, 2, 3, 1))

    def invert(self, ready: Array) -> NDArray[np.float32]:
        """Turn a model's input back into pixels (N, C, H, W), float32; equal to the source up to rounding.

        Raises:
            DataError: The array is not four-dimensional or has another number of channels.
        """
        _require_images(ready)
        planes = ready if self.layout == "NCHW" else ready.transpose(0, 3, 1, 2)
        if self.order == "BGR":
            planes = planes[:, ::-1]
        scale, offset = (part[:, None, None] for part in self.affine(planes.shape[1]))
        return np.ascontiguousarray((planes.astype(np.float64) - offset) / scale, dtype=np.float32)

    def _per_channel(self, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = max(len(self.mean), len(self.std))
        if found not in (1, channels):
            raise DataError(
                f"the preprocessing is for {found} channels, the images have {channels}",
                hint="Choose the preprocessing of this kind of image",
            )
        mean, std = (np.asarray(part, dtype=np.float64) for part in (self.mean, self.std))
        return np.broadcast_to(mean, (channels,)), np.broadcast_to(std, (channels,))


PRESETS: Final[dict[str, Preprocessing]] = {
    "none": Preprocessing(),
    "mnist": Preprocessing(mean=(0.1307,), std=(0.3081,)),
    "cifar10": Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    "imagenet": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}


def _field(key: str, text: str) -> Any:
    if key in ("layout", "order"):
        return text.upper()
    if key not in ("size", "resize"):
        numbers = _numbers(key, text, float)
        if key == "range" and len(numbers) != 2:
            raise DataError(f"found range={text}, expected two numbers, such as range=0,255")
        return numbers
    numbers = _numbers(key, text.lower().replace("x", ","), int)
    if len(numbers) > (1 if key == "resize" else 2):
        raise DataError(f"found {key}={text}, expected {'one number' if key == 'resize' else 'HEIGHT,WIDTH'}")
    return numbers[0] if key == "resize" else (numbers[0], numbers[-1])


def _numbers(key: str, text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(item) for item in text.split(","))
    except ValueError:
        raise DataError(f"found {key}={text!r}, expected numbers with commas between them") from None


def _require_images(array: Array) -> None:
    if array.ndim != 4:
        raise DataError(f"found an array of shape {array.shape}, expected four axes, one of them the batch")
