"""The inputs that a model has besides its images (keep_prob, is_training): each is filled with a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from jr_onnx.data.fitting import is_fixed
from jr_onnx.data.model_input import ModelInput
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError

_NUMBERS = "biuf"


class FurtherInputs:
    """What a model has to be fed besides its images.

    Args:
        inputs: The inputs that no initializer gives a value.
        values: Input name -> the number that fills it.

    Attributes:
        image: The input that images go into: the one without a value.

    Raises:
        InputError: A value names no input, an input has no value, none or several are left for images.
    """

    def __init__(self, inputs: Iterable[ModelInput], values: Mapping[str, float]) -> None:
        known = {item.name: item for item in inputs}
        for name in values:
            if name not in known:
                raise InputError(
                    f"the model has no input {name!r} to give a value, it has {', '.join(known) or 'none'}",
                    hint="Check the name",
                )
        left = [item for name, item in known.items() if name not in values]
        if not left:
            raise InputError("all inputs of the model have a value, expected one input left for the images")
        if len(left) > 1:
            image = max(left, key=_likeness)  # the first of the likeliest
            others = [item.name for item in left if item is not image]
            raise InputError(
                f"the model needs {', '.join(map(repr, others))} besides the images ({image.name!r})",
                hint=f"Give a value: --value {others[0]}=NUMBER, in Python values={{{others[0]!r}: number}}",
            )
        self.image = left[0]
        self._values = {name: (known[name], value) for name, value in values.items()}

    def feed(self, batch: int) -> dict[str, Array]:
        """Return the arrays of the further inputs for a batch of that size."""
        return {name: filled(item, value, batch) for name, (item, value) in self._values.items()}


def filled(target: ModelInput, value: float, batch: int) -> Array:
    """Return an array for an input, every element of it `value`.

    Args:
        target: The input; the first of its dynamic axes has the batch size, others and an unknown rank length one.
        value: The number.
        batch: The batch size.

    Raises:
        InputError: The input takes no numbers, or none like this.
    """
    try:
        dtype = np.dtype(target.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in _NUMBERS:
        raise InputError(f"the input {target.name!r} takes {target.dtype}, which no number fills")
    if dtype.kind in "iu" and value != int(value):
        raise InputError(f"the input {target.name!r} takes {target.dtype}, found {value:g}, expected a whole number")
    shape = [
        axis if isinstance(axis, int) and is_fixed(axis) else batch if place == 0 else 1
        for place, axis in enumerate(target.shape or ())
    ]
    return np.full(shape, value).astype(dtype)


def _likeness(item: ModelInput) -> tuple[bool, int]:
    """Say how much an input looks like one for images: floating, and of many axes."""
    return item.dtype.startswith(("float", "uint8")), 4 if item.shape is None else len(item.shape)
