"""ReLUs written with a comparison: the comparison stays, unused, and J takes the place of the last node.

    Where(z > 0, z, 0)                                   -> J(z)     also >=, <, <=, Not, 0 on the left, arms swapped
    z * Cast(z > 0), z * CastLike(z > 0, z), z * Where(z > 0, 1, 0)  -> J(z)     the factors in either order

J gives 0 for NaN; Where(z <= 0, 0, z) and the products keep it. A product gives NaN for -inf, where J gives 0. A
comparison with another number than 0 is a jump of the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewriter.detect.zeros import enlarges, is_number, number_of
from jr_onnx.rewriter.scopes import Scope

_ORDERS = {"Greater": 1, "GreaterOrEqual": 1, "Less": -1, "LessOrEqual": -1}
_CASTS = ("Cast", "CastLike")


@dataclass(frozen=True)
class _Test:
    """A condition: `name`, seen from `scope`, lies above the number (or, if not `above`, below it)."""

    scope: Scope
    name: str
    bound: str
    number: float
    above: bool


def detect_where(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match Where (9, 16) between a value and zero, by that value's sign."""
    if len(node.input) != 3:
        return None
    condition, first, second = node.input
    for operand, other, wanted in ((first, second, True), (second, first, False)):
        if is_number(context, scope, other, 0) is None:
            continue
        test = _test(context, scope, condition, operand)
        if test is not None and test.above == wanted:
            return _verdict(context, scope, node, ("where", operand, other), test)
    return None


def detect_mask(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match Mul of a value with 1 where it is above zero and 0 elsewhere."""
    if len(node.input) != 2:
        return None
    for operand, mask in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        test = _mask(context, scope, mask, operand)
        if test is not None and test.above:
            return _verdict(context, scope, node, ("mask", operand, ""), test)
    return None


def is_mask(context: Context, scope: Scope, operand: str, mask: str) -> bool:
    """Tell whether a value is 1 where another is above zero and 0 elsewhere, quantisers looked through."""
    holder, name = context.constants.unquantised(scope, mask)
    test = _mask(context, holder, name, operand, scope, is_loose=True)
    return test is not None and test.above and test.number == 0


def is_test(context: Context, scope: Scope, condition: str, operand: str) -> bool | None:
    """Tell whether a condition says that a value is above zero (or, if False, below); quantisers looked through."""
    test = _test(context, scope, condition, operand, is_loose=True)
    return test.above if test is not None and test.number == 0 else None


def _verdict(
    context: Context, scope: Scope, node: onnx.NodeProto, what: tuple[str, str, str], test: _Test
) -> Match | Refused | NotASite:
    form, operand, other = what
    if test.number != 0:
        return NotASite(f"it lets through what lies above {test.number:g}, which is a jump itself and not a ReLU")
    for name, where in ((other, scope), (test.bound, test.scope)):
        refused = enlarges(context, where, operand if where is scope else test.name, name) if name else None
        if refused is not None:
            return refused
    return Match(form, operand, node.output[0])


def _mask(
    context: Context, scope: Scope, name: str, operand: str, seen_from: Scope | None = None, *, is_loose: bool = False
) -> _Test | None:
    """Return the test of a factor that is 1 where it holds and 0 elsewhere."""
    found = context.constants.producer(scope, name)
    if found is None:
        return None
    holder, node = found
    if normal_domain(node.domain) or not node.input:
        return None
    if node.op_type in _CASTS:
        # A cast of a number would not be a mask; what is tested must be the operand as it is seen where the product is.
        return _test(context, holder, node.input[0], operand, seen_from or scope, is_loose=is_loose)
    if node.op_type == "Where" and len(node.input) == 3:
        values = [number_of(context, holder, item) for item in node.input[1:]]
        test = _test(context, holder, node.input[0], operand, seen_from or scope, is_loose=is_loose)
        if test is not None and values in ([1.0, 0.0], [0.0, 1.0]):
            above = test.above == (values == [1.0, 0.0])
            return _Test(test.scope, test.name, test.bound, test.number, above)
    return None


def _test(
    context: Context,
    scope: Scope,
    name: str,
    operand: str,
    seen_from: Scope | None = None,
    *,
    is_loose: bool = False,
) -> _Test | None:
    """Return what a condition says of the operand, None if it is no comparison of it with a number.

    Args:
        context: The model.
        scope: Where the condition is seen.
        name: The condition.
        operand: The value that it should be about.
        seen_from: Where the operand is seen, if not where the condition is.
        is_loose: Whether the operand before and behind a quantiser is one and the same.
    """
    constants = context.constants
    origin = constants.unquantised if is_loose else constants.origin
    wanted = origin(seen_from or scope, operand)
    positive = True
    for _ in range(8):
        found = constants.producer(scope, name)
        if found is None or normal_domain(found[1].domain):
            return None
        scope, node = found
        if node.op_type == "Not" and node.input:
            positive, name = not positive, node.input[0]
            continue
        if node.op_type == "Cast" and node.input:  # of a boolean: it is one still, whatever its type
            name = node.input[0]
            continue
        if node.op_type not in _ORDERS or len(node.input) != 2:
            return None
        for value, bound, sign in ((*node.input, 1), (*reversed(node.input), -1)):
            number = number_of(context, scope, bound)
            if number is not None and origin(scope, value) == wanted:
                return _Test(scope, str(value), str(bound), number, (_ORDERS[node.op_type] * sign > 0) == positive)
        return None
    return None
