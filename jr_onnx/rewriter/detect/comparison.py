"""ReLUs written with a comparison: the comparison stays, unused, and J takes the place of the last node.

    Where(z > 0, z, 0)                                   -> J(z)     also >=, <, <=, Not, 0 on the left, arms swapped
    z * Cast(z > 0), z * CastLike(z > 0, z), z * Where(z > 0, 1, 0)  -> J(z)     the factors in either order

J gives 0 for NaN; Where(z <= 0, 0, z) and the products keep it. A product gives NaN for -inf, where J gives 0. A
comparison with another number than 0 is a jump of the model's own (`own_jump`).
"""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.detect.base import Context, Match, Refused
from jr_onnx.rewriter.detect.condition import Condition, find_condition, find_mask
from jr_onnx.rewriter.detect.own_jump import own_jump, relu_before
from jr_onnx.rewriter.detect.zeros import enlarges, is_number
from jr_onnx.rewriter.scopes import Scope


def detect_where(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Where (9, 16) between a value, or its ReLU, and zero, by that value's sign or by a threshold."""
    if len(node.input) != 3 or context.is_retrofitted(scope, node, "where"):
        return None
    condition, first, second = node.input
    for result, other, wanted in ((first, second, True), (second, first, False)):
        if is_number(context, scope, other, 0) is None:
            continue
        for operand, form in _operands(context, scope, result, "where"):
            test = find_condition(context, scope, condition, operand)
            if test is not None and test.above == wanted:
                return _verdict(context, scope, node, (form, operand, other), test)
    return None


def detect_mask(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Mul of a value, or of its ReLU, with 1 where it is above zero or a threshold and 0 elsewhere."""
    if len(node.input) != 2 or context.is_retrofitted(scope, node, "cast_mul"):
        return None
    for factor, mask in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        for operand, form in _operands(context, scope, factor, "mask"):
            test = find_mask(context, scope, mask, operand)
            if test is not None and test.above:
                return _verdict(context, scope, node, (form, operand, ""), test)
    return None


def is_mask(context: Context, scope: Scope, operand: str, mask: str) -> bool:
    """Tell whether a value is 1 where another is above zero and 0 elsewhere, quantisers looked through."""
    holder, name = context.constants.unquantised(scope, mask)
    test = find_mask(context, holder, name, operand, scope, is_loose=True)
    return test is not None and test.above and test.number == 0


def is_test(context: Context, scope: Scope, condition: str, operand: str) -> bool | None:
    """Tell whether a condition says that a value is above zero (or, if False, below); quantisers looked through."""
    test = find_condition(context, scope, condition, operand, is_loose=True)
    return test.above if test is not None and test.number == 0 else None


def _operands(context: Context, scope: Scope, result: str, form: str) -> list[tuple[str, str]]:
    """Return what a condition may be about, and the form of the jump: the value itself, and what it is a ReLU of."""
    inner = relu_before(context, scope, result)
    return [(result, form)] if inner is None else [(result, form), (inner, f"relu_{form}")]


def _verdict(
    context: Context, scope: Scope, node: onnx.NodeProto, what: tuple[str, str, str], test: Condition
) -> Match | Refused | None:
    form, operand, other = what
    if test.number == 0 and form.startswith("relu_"):
        return None  # the ReLU in front is the site
    for name, where in ((other, scope), (test.bound if test.number is not None else "", test.scope)):
        refused = enlarges(context, where, operand if where is scope else test.name, name) if name else None
        if refused is not None:
            return refused
    if test.number != 0:
        return own_jump(context, scope, Match(form, operand, node.output[0], widened=test.widened), test)
    return Match(form, operand, node.output[0], widened=test.widened)
