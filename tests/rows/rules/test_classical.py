"""Classical learning (`ai.onnx.ml`): a line of a table in, a line of the result out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rows.rules.batches import assert_not_proved, assert_proved
from tests.rows.text import TOKENS, parse

COEFFICIENTS = "0.5, -1, 2, 0.5, -1, 2, -1, 0.5, 1, 2, -0.5, -1"  # different classes win
CLASSES = f"<coefficients = [{COEFFICIENTS}], intercepts = [0.1, 0.2], classlabels_ints = [3, 4]>"
TABLES = {
    "element by element": ("y = ai.onnx.ml.Binarizer <threshold = 0.1> (x)", "float[N,6] y"),
    "feature by feature": ("y = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (x)", "float[N,6] y"),
    "norm of a line": ('y = ai.onnx.ml.Normalizer <norm = "L2"> (x)', "float[N,6] y"),
    "regression": (
        f"y = ai.onnx.ml.LinearRegressor <coefficients = [{COEFFICIENTS}], intercepts = [0.1, 0.2], targets = 2> (x)",
        "float[N,2] y",
    ),
    "scores": (f"k, y = ai.onnx.ml.LinearClassifier {CLASSES} (x)", "float[N,2] y"),
    "classes": (f"y, p = ai.onnx.ml.LinearClassifier {CLASSES} (x)", "int64[N] y"),
}


@pytest.mark.parametrize("name", TABLES)
def test_lines_are_independent_and_onnx_runtime_agrees(name: str) -> None:
    body, output = TABLES[name]
    # At most 7 roundings of sums below 16.
    tolerance = 7 * 16 * float(np.finfo(np.float32).eps)
    assert_proved(parse(body, output=output), tolerance, different=2)  # classes, and what is binarised


def test_what_is_no_table_with_a_line_for_each_row_is_not_proved() -> None:
    turned = 't = Transpose (x) s = ai.onnx.ml.Normalizer <norm = "L2"> (t) y = Transpose (s)'
    for model in (
        parse(turned, output="float[N,6] y"),
        parse('y = ai.onnx.ml.Normalizer <norm = "L2"> (x)', inputs=TOKENS, output="float[N,5,6] y"),
    ):
        assert_not_proved(model, "its input is not a table with one line for each row")
