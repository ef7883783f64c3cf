"""The classification extension: the largest elements of an output as strings `VALUE:INDEX`, instead of the output.

As in Triton, the elements of every row of a batch are ordered by value, the largest first, and the output becomes a
BYTES tensor of shape (N, K), or (K) for a model without batches. Where the
package has labels for the output, an element is `VALUE:INDEX:LABEL`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.serve.call import Call, ModelInterface
from jr_onnx.serve.faults import BadRequestError, quoted
from jr_onnx.serve.tensors import TensorSpec

MOST_CLASSES: Final = 131072
"""How many classes one output may become: each is made by itself, and takes many times what a number takes."""

_SORTING_BYTES: Final = 24  # per element: a copy of at most 8 bytes, its index twice
_TEXT_BYTES: Final = 96  # per class: a reference, the object, about 30 characters


def class_count(value: object, spec: TensorSpec) -> int:
    """Return how many classes are wanted of an output.

    Raises:
        BadRequestError: It is not a number of classes, or the output holds no numbers.
    """
    if type(value) is not int or value < 1:
        raise BadRequestError(f"the parameter 'classification' is {quoted(value)}, expected a number of classes")
    if spec.is_bytes or spec.dtype.kind not in "fiu":
        raise BadRequestError(f"output {spec.name!r} is {spec.datatype}, which has no largest elements")
    return value


def classification_bytes(array: Array, count: int, labels: Sequence[str] = ()) -> int:
    """Return how much memory the largest `count` elements of every row take at most: all are sorted first."""
    text = _TEXT_BYTES + 4 * max(map(len, labels), default=0)  # a character of UTF-8 has up to four bytes
    return array.size * _SORTING_BYTES + min(array.size, count * max(1, len(array) if array.ndim else 1)) * text


def classify(interface: ModelInterface, call: Call, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs, with classes in place of those for which they are asked."""
    found = dict(outputs)
    for name, count in call.classes.items():
        found[name] = _classes(outputs[name], count, interface.labels.get(name, ()), batched=interface.batched)
    return found


def answered_spec(interface: ModelInterface, call: Call, name: str) -> TensorSpec:
    """Return what an output is in the answer."""
    spec = interface.outputs[name]
    if name not in call.classes:
        return spec
    return TensorSpec(name, "BYTES", np.dtype(object), None)


def _classes(array: Array, count: int, labels: Sequence[str], *, batched: bool) -> Array:
    rows = array.reshape(len(array), -1) if batched and array.ndim else array.reshape(1, -1)
    size = rows.shape[1]
    count = min(count, size)
    if len(rows) * count > MOST_CLASSES:
        raise BadRequestError(f"{len(rows)} rows of {count} classes are wanted, expected {MOST_CLASSES} in all at most")
    # NaN sorts last of all in NumPy, so that it would come first here.
    keys = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Turned around twice: the largest comes first, and of equals the one of the lower index, as in Triton.
    order = size - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    values = np.take_along_axis(rows, order, axis=1)
    text = np.empty(order.shape, dtype=object)
    for row, (numbers, indices) in enumerate(zip(values.tolist(), order.tolist(), strict=True)):
        text[row] = [
            f"{_number(number)}:{index}{_label(labels, index)}".encode()
            for number, index in zip(numbers, indices, strict=True)
        ]
    return text if batched and array.ndim else text[0]


def _number(value: object) -> str:
    return f"{value:f}" if isinstance(value, float) else str(value)


def _label(labels: Sequence[str], index: int) -> str:
    return f":{labels[index]}" if index < len(labels) else ""
