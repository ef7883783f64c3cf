"""Clip(z, 0, cap) -> Clip(J(z), , cap) = min(J(z), cap); Clip(z, 0) without an upper bound -> J(z).

ReLU6 is exported as Clip. The bounds are attributes before opset 11 and inputs from then on; inputs count only where
they are proved constant, through CastLike, functions and whatever else `constants` follows. A Clip whose lower bound is
a constant other than 0 is not a ReLU and is passed over. The Clip that is kept after J has the upper bound alone, so
that it is not found as a site again. An upper bound that is the largest number of the type, written
out or by default, counts as none: exporters mean a ReLU by it. The one difference is +inf, which such a Clip makes
finite and J keeps.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from jr_onnx.modelfile import copied
from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context, Match, Refused
from jr_onnx.rewriter.scopes import Scope

_CLIP_WITH_INPUTS = 11


def detect_clip(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Clip (1, 6, 11, 12, 13) with a lower bound of 0."""
    if not node.input or not node.input[0] or len(node.output) != 1 or not node.output[0]:
        return Refused("a Clip has a first input and one output, found otherwise")
    if scope.opset >= _CLIP_WITH_INPUTS:
        bounds = [_bound_input(context, scope, node, index) for index in (1, 2)]
    else:
        bounds = [_bound_attribute(context, scope, node, name) for name in ("min", "max")]
    low, high = bounds
    if isinstance(low, Refused):
        return Refused(f"the lower bound of this Clip is not constant: {low.reason}")
    if low is None or low != 0:
        return None
    if isinstance(high, Refused):
        return Refused(f"the upper bound of this Clip is not constant: {high.reason}")
    if high is None:
        return Match("clip", node.input[0], node.output[0])
    if math.isnan(high) or high < 0:
        return Refused(f"this Clip goes from 0 to {high}, so it is not a ReLU with a cap")
    return Match("clip", node.input[0], node.output[0], cap=high, after=_upper_bound_only(node))


def _upper_bound_only(node: onnx.NodeProto) -> onnx.NodeProto:
    capping = copied(node)
    if len(capping.input) > 1:
        capping.input[1] = ""
    for index in reversed(range(len(capping.attribute))):
        if capping.attribute[index].name == "min":
            del capping.attribute[index]
    return capping


def _bound_attribute(context: Context, scope: Scope, node: onnx.NodeProto, name: str) -> float | Refused | None:
    attribute = context.constants.attribute(scope, node, name)
    if isinstance(attribute, NotConstant):
        return Refused(attribute.reason)
    return None if attribute is None else float(attribute.f)


def _bound_input(context: Context, scope: Scope, node: onnx.NodeProto, index: int) -> float | Refused | None:
    if len(node.input) <= index or not node.input[index]:
        return None
    value = context.constants.value(scope, node.input[index])
    if isinstance(value, NotConstant):
        return Refused(value.reason)
    if value.size != 1:
        return Refused(f"{node.input[index]!r} has {value.size} elements, expected a scalar")
    return float(value.reshape(()).astype(np.float64))
