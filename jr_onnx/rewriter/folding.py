"""Compute a node of constants with ONNX's reference evaluator; small constants and plain operators only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx

from jr_onnx.element_types import NUMBERS, Array
from jr_onnx.modelfile import copied

MAX_ELEMENTS = 4096
FOLDED = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "DequantizeLinear", "Div", "Expand", "Floor", "Gather",
    "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Reshape", "Round", "Shape", "Size", "Slice", "Sqrt", "Squeeze",
    "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that exporters leave between a constant and its use."""
_GROWING = {"ConstantOfShape", "Expand"}


def fold(node: onnx.NodeProto, opset: int, arguments: Sequence[Array | None], most: int = MAX_ELEMENTS) -> Array | None:
    """Return what a node makes of its arguments, None where the evaluator does not know or the result is large.

    Args:
        node: A node with one output, of an operator in `FOLDED`.
        opset: Version of the standard operator set.
        arguments: Its inputs; None for one that is left out.
        most: How many elements the result may have.
    """
    if len(node.output) != 1 or opset < 1 or any(attribute.ref_attr_name for attribute in node.attribute):
        return None
    if node.op_type in _GROWING and not _small_shape(node, arguments):
        return None
    types = []
    for argument in arguments:
        number = 0 if argument is None else NUMBERS.get(str(argument.dtype), 0)
        if argument is not None and number == 0:
            return None
        types.append((number, argument.shape if argument is not None else ()))
    body = copied(node)
    body.name, body.doc_string = "", ""
    body.output[0] = "result"
    for index, argument in enumerate(arguments):
        body.input[index] = "" if argument is None else f"argument_{index}"
    try:
        evaluator = _evaluator(bytes(body.SerializeToString(deterministic=True)), opset)
        with np.errstate(all="ignore"):
            feeds = {f"argument_{index}": value for index, value in enumerate(arguments) if value is not None}
            (result,) = evaluator.run(None, feeds)
    except Exception:  # noqa: BLE001 - the evaluator raises anything; then the value counts as not known
        return None
    array = np.asarray(result)
    return array if array.size <= most else None


@lru_cache(maxsize=256)
def _evaluator(node: bytes, opset: int) -> Any:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    body = onnx.NodeProto.FromString(node)
    inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(body.input) if name]
    graph = helper.make_graph([body], "fold", inputs, [onnx.ValueInfoProto(name="result")])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def _small_shape(node: onnx.NodeProto, arguments: Sequence[Array | None]) -> bool:
    shape = arguments[0] if node.op_type == "ConstantOfShape" else arguments[1] if len(arguments) > 1 else None
    if shape is None or shape.dtype.kind not in "iu" or shape.size > 16:
        return False
    count = 1
    for dim in np.ravel(shape):
        count *= max(int(dim), 1)
    other = arguments[0] if node.op_type == "Expand" else None
    return count * (other.size if other is not None else 1) <= MAX_ELEMENTS
