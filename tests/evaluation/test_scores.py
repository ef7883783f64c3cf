"""What is the answer of scores, and of scores that are no answer."""

from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.evaluation.scores import NO_ANSWER, predictions

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_answer_is_the_class_of_the_largest_score_if_there_is_one(dtype: type[np.generic]) -> None:
    rows = {
        (0.1, 0.3, 0.2): 1,
        (-3.0, -2.0, -1.0): 2,
        (5.0, 5.0, 1.0): 0,
        (-INF, -4.0, -INF): 1,  # masked classes
        (-INF, -INF, -INF): NO_ANSWER,
        (1.0, INF, 0.0): NO_ANSWER,
        (1.0, NAN, 2.0): NO_ANSWER,
    }
    found = predictions(np.array(list(rows), dtype=dtype))
    assert found.tolist() == list(rows.values())
    assert predictions(np.zeros((0, 3), dtype=dtype)).shape == (0,)
