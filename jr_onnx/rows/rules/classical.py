"""Classical models (ai.onnx.ml) on tables: rows along the first axis, features along the second."""

from __future__ import annotations

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import CLASSICAL, rule
from jr_onnx.rows.size import ONE
from jr_onnx.rows.value import ALONE, NotProvedError, Value, fixed, like, rows


def _table(node: Node) -> Value | None:
    """Return the input where it is a table with rows, None where it is the same for all."""
    value = node.value(0)
    if value.axis is None:
        return None
    if value.axis != 0 or value.block != ALONE or value.rank != 2:
        raise NotProvedError("its input is not a table with one line for each row")
    return value


@rule("Binarizer", "LabelEncoder", domain=CLASSICAL)
def by_element(node: Node) -> Answer:
    """Change every element by itself."""
    return like(node.value(0))


@rule("Imputer", "Normalizer", "Scaler", domain=CLASSICAL)
def by_feature(node: Node) -> Answer:
    """Change each line by itself."""
    value = _table(node)
    return fixed(node.value(0).dims) if value is None else like(value)


@rule("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor", domain=CLASSICAL)
def regressor(node: Node) -> Answer:
    """Give numbers for each line."""
    value = _table(node)
    return fixed() if value is None else rows(0, ALONE, (ONE, node.fresh()))


@rule("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier", domain=CLASSICAL)
def classifier(node: Node) -> Answer:
    """Give a class and scores for each line."""
    value = _table(node)
    if value is None:
        return fixed()
    return [rows(0, ALONE, (ONE,)), rows(0, ALONE, (ONE, node.fresh()))][: node.outputs]
