"""Which shape a sample takes on its way into a model's input; axes that the model leaves free follow the data.

    image (C, H, W) in the model's layout   ->   itself | without its axes of length one | one axis of all values

Each of the three may have further axes of length one: a picture of 28 x 28 goes into (N, 28, 28), (N, 28, 28, 1),
(N, 784), (N, 784, 1) and (N, 1, 784). A vector, which is an image (1, 1, F), also goes into any fixed shape of F
values.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt

from jr_onnx.element_types import Element

Axes = tuple[int | str | None, ...]


def fit(axes: Axes | None, image: tuple[int, int, int]) -> tuple[int, ...] | None:
    """Return the shape of one sample, None where the sample does not fit or fits in several ways.

    Args:
        axes: The axes of the input after the batch: a positive number where fixed, anything else where free; None
            where the model does not say how many there are.
        image: The sizes of an image in the order of the model's layout.
    """
    count = math.prod(image)
    is_vector = max(image) == count
    if axes is None:
        return (count,) if is_vector else image
    for wanted in dict.fromkeys((image, tuple(size for size in image if size > 1), (count,))):
        found = _assignments(axes, wanted)
        if len(found) == 1:
            return found.pop()
        if found:
            return None
    fixed = tuple(axis for axis in axes if isinstance(axis, int) and axis > 0)
    return fixed if is_vector and len(fixed) == len(axes) and math.prod(fixed) == count else None


def _assignments(axes: Axes, wanted: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Return all shapes that are `wanted` with axes of length one anywhere between, and that the axes allow."""
    ones = len(axes) - len(wanted)
    if ones < 0:
        return set()
    found = set()
    for places in combinations(range(len(axes)), ones):
        sizes = iter(wanted)
        shape = tuple(1 if place in places else next(sizes) for place in range(len(axes)))
        if all(not is_fixed(axis) or axis == size for axis, size in zip(axes, shape, strict=True)):
            found.add(shape)
    return found


def is_fixed(axis: int | str | None) -> bool:
    """Tell whether a model insists on the size of an axis; some exporters write 0 or -1 for a free one."""
    return isinstance(axis, int) and axis > 0


def padded(rows: npt.NDArray[Element], batch: int | None) -> npt.NDArray[Element]:
    """Return rows (N, ...), N >= 1, with the last one repeated up to a fixed batch; None leaves them as they are."""
    missing = 0 if batch is None else batch - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows
