"""From pixels to the very array that a model's input takes, and back: axes, element type, fixed batch.

(N, C, H, W) pixels  ->  (N, C, H, W) | (N, H, W, C) | (N, H, W) with C = 1 | (N, C*H*W)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.errors import DataError

_FLOATS: Final = ("float32", "float64", "float16")
_ORT_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}
_Form = Literal["image", "plane", "flat"]


class _SessionInput(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> list[int | str | None]: ...


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input of an ONNX model.

    Attributes:
        name: Its name.
        dtype: NumPy name of its element type.
        shape: Its axes, a number where fixed, anything else where free; None where the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    @classmethod
    def of_session(cls, node: _SessionInput) -> ModelInput:
        """Describe what ONNX Runtime's `session.get_inputs()[i]` is."""
        return cls(node.name, _ORT_TYPES.get(node.type, node.type), tuple(node.shape))


class InputAdapter:
    """The way from pixels to one model's input, checked when it is made.

    Args:
        target: The model's input.
        image_shape: (C, H, W) of the images.
        preprocessing: What the model expects.

    Attributes:
        target: The model's input.
        fixed_batch: The batch size that the model insists on; None where it is free.

    Raises:
        DataError: The images cannot go into this input.
    """

    def __init__(self, target: ModelInput, image_shape: tuple[int, int, int], preprocessing: Preprocessing) -> None:
        self.target = target
        self._image_shape = image_shape
        self._preprocessing = preprocessing
        preprocessing.affine(image_shape[0])  # refuses another number of channels
        self._check_dtype()
        self._form = self._find_form()
        batch = target.shape[0] if target.shape else None
        self.fixed_batch: int | None = batch if isinstance(batch, int) and batch > 0 else None

    def to_model(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn pixels (N, C, H, W) in [0, 1] into the array that the input takes.

        Raises:
            DataError: The images have another shape, or another number than a fixed batch.
        """
        if pixels.shape[1:] != self._image_shape:
            raise DataError(f"found images of shape {pixels.shape[1:]}, expected {self._image_shape}")
        if self.fixed_batch is not None and len(pixels) != self.fixed_batch:
            raise DataError(f"the input {self.target.name!r} takes {self.fixed_batch} images, found {len(pixels)}")
        ready = self._preprocessing.apply(pixels)
        if self._form == "flat":
            ready = ready.reshape(len(pixels), -1)
        elif self._form == "plane":
            ready = ready.reshape(len(pixels), *self._image_shape[1:])
        if self.target.dtype == "uint8":
            return np.rint(ready).astype(np.uint8)
        return ready.astype(self.target.dtype, copy=False)

    def to_pixels(self, ready: NDArray[Any]) -> NDArray[np.float32]:
        """Turn what `to_model` gave back into pixels (N, C, H, W); equal up to rounding.

        Raises:
            DataError: The array has another size.
        """
        channels, height, width = self._image_shape
        nhwc = self._preprocessing.layout == "NHWC"
        shape = (height, width, channels) if nhwc else (channels, height, width)
        if ready.ndim < 2 or ready[:1].size != channels * height * width:
            raise DataError(f"found an array of shape {ready.shape}, expected a batch of {shape}")
        return self._preprocessing.invert(ready.reshape(len(ready), *shape))

    def _check_dtype(self) -> None:
        target, chosen = self.target, self._preprocessing
        if target.dtype in _FLOATS:
            return
        bytes_wanted = chosen.range == (0.0, 255.0) and set(chosen.mean) == {0.0} and set(chosen.std) == {1.0}
        if target.dtype == "uint8" and not bytes_wanted:
            raise DataError(
                f"the input {target.name!r} takes bytes, the preprocessing gives fractions",
                hint="Use the preprocessing range=0,255",
            )
        if target.dtype != "uint8":
            raise DataError(f"the input {target.name!r} takes {target.dtype}, expected floats or bytes for images")

    def _find_form(self) -> _Form:
        shape, (channels, height, width) = self.target.shape, self._image_shape
        if shape is None:
            return "image"
        if self._preprocessing.layout == "NCHW":
            image: tuple[int, ...] = (channels, height, width)
        else:
            image = (height, width, channels)
        forms: dict[int, tuple[_Form, tuple[int, ...]]] = {
            4: ("image", image),
            2: ("flat", (channels * height * width,)),
        }
        if channels == 1:
            forms[3] = ("plane", (height, width))
        form = forms.get(len(shape))
        if form is not None and _fits(shape[1:], form[1]):
            return form[0]
        swapped = (height, width, channels) if self._preprocessing.layout == "NCHW" else (channels, height, width)
        hint = "Use data of that shape, or another model"
        if len(shape) == 4 and _fits(shape[1:], swapped):
            other = "NHWC" if self._preprocessing.layout == "NCHW" else "NCHW"
            hint = f"It fits the layout {other}: use the preprocessing layout={other}"
        raise DataError(
            f"the input {self.target.name!r} has the shape {_text(shape)}, which images of shape {self._image_shape} "
            f"in the layout {self._preprocessing.layout} do not fit",
            hint=hint,
        )


def _is_fixed(axis: int | str | None) -> bool:
    return isinstance(axis, int) and axis > 0


def _fits(axes: tuple[int | str | None, ...], sizes: tuple[int, ...]) -> bool:
    return all(not _is_fixed(axis) or axis == size for axis, size in zip(axes, sizes, strict=True))


def _text(shape: tuple[int | str | None, ...]) -> str:
    return "(" + ", ".join("?" if axis is None else str(axis) for axis in shape) + ")"
