"""Max(z, 0) -> J(z), either order; the zero proved constant and not enlarging the result by broadcasting."""

from __future__ import annotations

import numpy as np
import onnx

from jr_onnx.rewrite.constants import NotConstant
from jr_onnx.rewrite.detect.base import Context, Match, Refused
from jr_onnx.rewrite.scopes import Scope


def detect_max(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Max (1, 6, 8, 12, 13) with a constant zero among its inputs."""
    values = [context.constants.value(scope, name) if name else NotConstant("") for name in node.input]
    zeros = [
        index
        for index, value in enumerate(values)
        if not isinstance(value, NotConstant) and value.size > 0 and not np.any(value)
    ]
    if not zeros or len(zeros) == len(node.input):
        return None
    if len(node.input) != 2:
        return Refused(f"this Max has {len(node.input)} inputs, one of them 0; only Max(x, 0) is taken for a ReLU")
    zero = values[zeros[0]]
    operand = node.input[1 - zeros[0]]
    if not operand:
        return Refused("this Max compares 0 with an input that is left out")
    if not isinstance(zero, NotConstant) and zero.ndim and not _fits(context, scope, operand, zero.shape):
        return Refused(
            f"the zero of this Max has the shape {list(zero.shape)}, which may enlarge {operand!r} by broadcasting"
        )
    return Match("max", operand, node.output[0])


def _fits(context: Context, scope: Scope, name: str, zero: tuple[int, ...]) -> bool:
    """Tell whether broadcasting with the zero leaves the operand's shape as it is."""
    shape = _shape(context, scope, name)
    if shape is None or len(zero) > len(shape):
        return False
    own = shape[len(shape) - len(zero) :]
    return all(extent in (1, known) for extent, known in zip(zero, own, strict=True))


def _shape(context: Context, scope: Scope, name: str) -> list[int | None] | None:
    """Return the shape the model declares for a value, or shape inference finds in the main graph."""
    declared = _declared(scope.graph, name)
    if declared is None and scope.is_main:
        try:
            inferred = onnx.shape_inference.infer_shapes(context.model)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return None
        declared = _declared(inferred.graph, name)
    return declared


def _declared(graph: onnx.GraphProto | None, name: str) -> list[int | None] | None:
    if graph is None:
        return None
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.name == name and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return None
