"""The bounds of a Clip that stands beside a ReLU: attributes before opset 11, inputs from then on."""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context
from jr_onnx.rewriter.detect.zeros import number_of
from jr_onnx.rewriter.scopes import Scope

CLIP_WITH_INPUTS = 11


def clip_bounds(context: Context, scope: Scope, node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """Return both bounds; None for one that is left out, NaN for one that is not constant."""
    found: list[float | None] = []
    for index, attribute in enumerate(("min", "max"), 1):
        if scope.opset < CLIP_WITH_INPUTS:
            item = context.constants.attribute(scope, node, attribute)
            value = None if item is None else float("nan") if isinstance(item, NotConstant) else float(item.f)
        elif len(node.input) > index and node.input[index]:
            number = number_of(context, scope, node.input[index])
            value = float("nan") if number is None else number
        else:
            value = None
        found.append(value)
    low, high = found
    return low, high
