"""From pixels to the very array that a model's input takes, and back: axes, element type, fixed batch.

`fitting` says which shapes there are for an image, and takes the sizes of dynamic axes from the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from jr_onnx.data.fitting import fit, is_fixed
from jr_onnx.data.preprocessing import Preprocessing
from jr_onnx.element_types import NAMES, TENSORS, Array
from jr_onnx.errors import DataError

if TYPE_CHECKING:
    import onnx

_FLOATS: Final = ("float32", "float64", "float16")
_NUMPY_NAMES: Final = {name: row.name for name, row in TENSORS.items() if row.name not in ("string", "bfloat16")}
_IMAGE_RANK = 4


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
        """Describe what ONNX Runtime's `session.get_inputs()[i]` is.

        ONNX Runtime shows an input without a declared rank as it shows a scalar, which no image input is.
        """
        return cls(node.name, _NUMPY_NAMES.get(node.type, node.type), tuple(node.shape) or None)

    @classmethod
    def of_graph(cls, value: onnx.ValueInfoProto) -> ModelInput:
        """Describe an input of a graph; some exporters write -1 for the size of a dynamic axis."""
        tensor = value.type.tensor_type
        shape: tuple[int | str | None, ...] | None = None
        if tensor.HasField("shape"):
            known = (dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim)
            axes = zip(tensor.shape.dim, known, strict=True)
            shape = tuple(dim.dim_value if fixed else dim.dim_param or None for dim, fixed in axes)
        return cls(value.name, NAMES.get(tensor.elem_type, f"element type {tensor.elem_type}"), shape)


def required_inputs(model: onnx.ModelProto) -> list[ModelInput]:
    """Return the inputs of a model that no initializer gives a value."""
    given = {tensor.name for tensor in model.graph.initializer}
    given |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return [ModelInput.of_graph(value) for value in model.graph.input if value.name not in given]


class InputAdapter:
    """The way from pixels to one model's input, checked when it is made.

    Args:
        target: The model's input.
        image_shape: (C, H, W) of the images; (1, 1, F) of vectors.
        preprocessing: What the model expects.

    Attributes:
        target: The model's input.
        sample_shape: The shape of one sample as the input takes it; dynamic axes have the sizes of the data.
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
        self.sample_shape: tuple[int, ...] = self._find_shape()
        batch = target.shape[0] if target.shape else None
        self.fixed_batch: int | None = batch if isinstance(batch, int) and batch > 0 else None

    def to_model(self, pixels: Array) -> Array:
        """Turn pixels (N, C, H, W) in [0, 1] into the array that the input takes.

        Raises:
            DataError: The images have another shape, or another number than a fixed batch.
        """
        if pixels.shape[1:] != self._image_shape:
            raise DataError(f"found images of shape {pixels.shape[1:]}, expected {self._image_shape}")
        if self.fixed_batch is not None and len(pixels) != self.fixed_batch:
            raise DataError(f"the input {self.target.name!r} takes {self.fixed_batch} images, found {len(pixels)}")
        ready = self._preprocessing.apply(pixels).reshape(len(pixels), *self.sample_shape)
        if self.target.dtype == "uint8":
            return np.rint(ready).astype(np.uint8)
        return ready.astype(self.target.dtype, copy=False)

    def to_pixels(self, ready: Array) -> NDArray[np.float32]:
        """Turn what `to_model` gave back into pixels (N, C, H, W); equal up to rounding.

        Raises:
            DataError: The array has another size.
        """
        shape = _laid_out(self._image_shape, self._preprocessing.layout == "NHWC")
        if ready.ndim < 2 or ready[:1].size != np.prod(shape):
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

    def _find_shape(self) -> tuple[int, ...]:
        shape, nhwc = self.target.shape, self._preprocessing.layout == "NHWC"
        axes = shape[1:] if shape is not None else None
        found = fit(axes, _laid_out(self._image_shape, nhwc))
        if found is not None:
            return found
        raise DataError(
            f"the input {self.target.name!r} has the shape {_text(shape or ())}, which images of shape "
            f"{self._image_shape} in the layout {self._preprocessing.layout} do not fit",
            hint=self._remedy(axes or (), nhwc=nhwc),
        )

    def _remedy(self, axes: tuple[int | str | None, ...], *, nhwc: bool) -> str:
        swapped = _laid_out(self._image_shape, not nhwc)
        if fit(axes, swapped) is not None:
            other = "NCHW" if nhwc else "NHWC"
            return f"It fits the layout {other}: use the preprocessing layout={other}"
        if len(axes) != _IMAGE_RANK - 1:
            return "Use data of that shape, or another model"
        channels, *sides = (axes[2], *axes[:2]) if nhwc else axes
        if channels == self._image_shape[0] and all(is_fixed(side) for side in sides):
            height, width = sides
            size = f"{height}" if height == width else f"{height},{width}"
            return f"Use data of that size, or the preprocessing size={size}, which resizes and crops the images"
        return f"Use data of that shape: the model takes {channels} channels, the images have {self._image_shape[0]}"


def _laid_out(shape: tuple[int, int, int], nhwc: bool) -> tuple[int, int, int]:
    channels, height, width = shape
    return (height, width, channels) if nhwc else shape


def _text(shape: tuple[int | str | None, ...]) -> str:
    return "(" + ", ".join("?" if axis is None else str(axis) for axis in shape) + ")"
