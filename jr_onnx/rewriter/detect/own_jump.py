"""Jumps that a model has itself, as exported JumpReLU sparse autoencoders do: J with its own thresholds.

    z * Cast(z > t), Where(z > t, z, 0)                    with t > 0, in all the spellings of `comparison`
    Relu(z) * Cast(z > t), Where(z > t, Relu(z), 0)        with any t: below 0 it counts as 0

t is a number, or a tensor whose elements differ along one axis of z: (F,) for z of shape (N, F) or (N, T, F). Only the
place of the thresholds is found here; `rewriter.thresholds` reads them. A detector rarely knows them: a tensor of
24,576 thresholds is not a small constant, and stays a token while a model is edited.

Where(z > t, z, 0) is J, NaN and infinities included. The others are J for every z but these: NaN stays NaN in all
products and in Where(z <= t, 0, z); -inf gives NaN in z * Cast(z > t). The sign of a zero may differ.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context, Match, Refused, Threshold
from jr_onnx.rewriter.detect.clip import detect_clip
from jr_onnx.rewriter.detect.condition import Condition
from jr_onnx.rewriter.detect.maximum import detect_max
from jr_onnx.rewriter.detect.relu import detect_relu
from jr_onnx.rewriter.detect.shapes import Dims, shown
from jr_onnx.rewriter.detect.zeros import dims_of
from jr_onnx.rewriter.scopes import Scope

ITSELF = "it is a jump itself"
"""How the reason of every refusal of a jump begins."""

_RELUS = {"Relu": detect_relu, "Clip": detect_clip, "Max": detect_max}


def relu_before(context: Context, scope: Scope, name: str) -> str | None:
    """Return z where a value is the ReLU of z without a cap, and z has the same name where the value is read."""
    found = context.constants.producer(scope, name)
    if found is None or normal_domain(found[1].domain) or found[1].op_type not in _RELUS or not found[1].output:
        return None
    holder, node = found
    match = _RELUS[str(node.op_type)](context, holder, node)
    if not isinstance(match, Match) or match.cap is not None:
        return None
    same = context.constants.origin(scope, match.operand) == context.constants.origin(holder, match.operand)
    return match.operand if same else None


def own_jump(context: Context, scope: Scope, match: Match, condition: Condition) -> Match | Refused:
    """Return the jump of a match whose condition compares with thresholds."""
    axis: int | None = None
    count, rank = 1, 0
    if condition.number is None:
        dims = _dims_of_constant(context, condition.scope, condition.bound)
        own = dims_of(context, scope, match.operand)
        if dims is None or own is None:
            what = condition.bound if dims is None else match.operand
            return Refused(
                f"{ITSELF}, and the shape of {what!r} is not known; add shapes, for instance with "
                "onnx.shape_inference.infer_shapes"
            )
        along = [place for place, extent in enumerate(dims) if extent != 1]
        if len(along) > 1:
            return Refused(f"{ITSELF}, whose thresholds {condition.bound!r} differ along several axes")
        behind = own[len(own) - len(dims) :] if len(dims) <= len(own) else ()
        if len(dims) > len(own) or (along and behind[along[0]] != dims[along[0]]):
            return Refused(
                f"{ITSELF}, and its thresholds {condition.bound!r} ({shown(dims)}) may enlarge "
                f"{match.operand!r} ({shown(own)}) by broadcasting"
            )
        if along:
            axis, count = len(own) - len(dims) + along[0], int(dims[along[0]] or 0)
            rank = len(dims) - along[0] + 1
    behind_relu = match.form.startswith("relu_")
    threshold = Threshold(
        condition.scope, condition.bound, axis, count, rank, strict=condition.strict, clamped=behind_relu
    )  # fmt: skip
    return replace(match, form=f"jump_{match.form}", jump=threshold)


def _dims_of_constant(context: Context, scope: Scope, name: str) -> Dims | None:
    """Return the shape of a constant whose elements may be out of reach."""
    found = context.constants.definition(scope, name)
    if isinstance(found, NotConstant):
        return None
    holder, item = found
    if isinstance(item, onnx.TensorProto):
        return tuple(item.dims)
    value = context.constants.value(scope, name)
    if not isinstance(value, NotConstant):
        return value.shape
    stored = next((one.t for one in item.attribute if one.name == "value"), None) if item is not None else None
    if item is not None and item.op_type == "Constant" and stored is not None:
        return tuple(stored.dims)
    dims = context.shapes.of(holder, name)
    return dims if dims is not None and all(isinstance(extent, int) for extent in dims) else None
