"""From a model's scores to its answers: the one place that says what the answer of infinite or NaN scores is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jr_onnx.element_types import Array

NO_ANSWER = -1


def predictions(scores: Array) -> npt.NDArray[np.int64]:
    """Return the class of the largest score (N,) of scores (N, K), `NO_ANSWER` where that is not finite or one is NaN.

    A class at minus infinity is one that is masked and never the answer; the others decide.
    """
    best = scores.max(axis=1)
    result: npt.NDArray[np.int64] = np.where(np.isfinite(best), scores.argmax(axis=1), NO_ANSWER)
    return result
