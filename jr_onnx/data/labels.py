"""Labels as people store them, turned into classes: whole numbers of any type, a column of them, or one-hot rows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from jr_onnx.element_types import Array
from jr_onnx.errors import DataError

MOST_CLASSES: Final = 100_000
UNLABELLED_HINT: Final = "Add labels; without them, jr-onnx harden --labels-from model trains on the model's answers"


def to_classes(labels: Array, where: str) -> tuple[NDArray[np.int64], int]:
    """Return the class of every item, (N,) int64 from 0, and how many classes there are at least.

    Args:
        labels: (N,) or (N, 1) integers, booleans or floats that are whole numbers; or (N, K) with K > 1, every row all
            zeros and a single 1.
        where: What they are, for the error.

    Raises:
        DataError: They are something else, negative, or too large.
    """
    if labels.dtype.kind not in "biuf":
        raise DataError(
            f"{where} has the type {labels.dtype}, expected whole numbers",
            hint="Number the classes from 0, for instance with np.unique(labels, return_inverse=True)",
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _hot(labels, where), labels.shape[1]
    if labels.ndim != 1:
        raise DataError(f"{where} has the shape {labels.shape}, expected (N,) classes, or one-hot rows (N, K)")
    if labels.dtype.kind == "f":
        odd = np.flatnonzero(~(np.isfinite(labels) & (labels == np.rint(labels))))
        if len(odd):
            raise DataError(
                f"{where}: item {int(odd[0])} has the label {labels[odd[0]]}, expected a whole number",
                hint="Labels are classes counted from 0; a regression has none",
            )
    if len(labels) and not (labels.min() >= 0 and labels.max() < MOST_CLASSES):
        raise DataError(
            f"{where} has labels from {labels.min()} to {labels.max()}, expected 0 to {MOST_CLASSES - 1}",
            hint="Number the classes from 0",
        )
    classes = labels.astype(np.int64)
    return classes, int(classes.max(initial=-1)) + 1


def _hot(rows: Array, where: str) -> NDArray[np.int64]:
    is_one = rows == 1
    odd = np.flatnonzero(((rows != 0) != is_one).any(axis=1) | (is_one.sum(axis=1) != 1))
    if len(odd):
        raise DataError(
            f"{where} has the shape {rows.shape}, and row {int(odd[0])} is not one-hot (one 1, the rest 0)",
            hint="Store the class of every item, (N,), for instance labels.argmax(1)",
        )
    return np.asarray(is_one.argmax(axis=1), dtype=np.int64)
