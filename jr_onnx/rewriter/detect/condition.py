"""Conditions of the form z > t, as models write them, and the masks made of them: 1 where one holds, 0 elsewhere.

    Greater(z, t)   also GreaterOrEqual, Less, LessOrEqual, with t on the left, behind Not and behind Cast to a number
    Greater(Cast(z), t)                              the Cast must widen z's type, which the caller has to check
    Cast(z > t), CastLike(z > t, z), Where(z > t, 1, 0)    masks

t is a constant: a number, or a tensor whose elements differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from jr_onnx.element_types import FLOAT_NUMBERS
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context
from jr_onnx.rewriter.detect.zeros import number_of
from jr_onnx.rewriter.folding import FOLDED
from jr_onnx.rewriter.scopes import Scope

_ORDERS = {"Greater": (1, True), "GreaterOrEqual": (1, False), "Less": (-1, True), "LessOrEqual": (-1, False)}
_CASTS = ("Cast", "CastLike")
_FAR = 20
_COMPUTED = {"Identity", "CastLike", "Exp"}  # besides `FOLDED`; Exp makes thresholds of log thresholds


@dataclass(frozen=True)
class Condition:
    """A condition on a value: it lies above a bound, or below it.

    Attributes:
        scope: Where it is tested.
        name: The value, as it is called there.
        bound: What it is compared with.
        number: What all elements of the bound are; None where they differ or are not known.
        above: Whether the value lies above the bound where the condition holds; below it otherwise.
        strict: Whether the value at the bound counts as below.
        widened: The element type that the value is cast to before, or 0.
    """

    scope: Scope
    name: str
    bound: str
    number: float | None
    above: bool
    strict: bool
    widened: int = 0


def find_mask(
    context: Context, scope: Scope, name: str, operand: str, seen_from: Scope | None = None, *, is_loose: bool = False
) -> Condition | None:
    """Return the condition of a factor that is 1 where it holds and 0 elsewhere; the arguments of `find_condition`."""
    found = context.constants.producer(scope, name)
    if found is None:
        return None
    holder, node = found
    if normal_domain(node.domain) or not node.input:
        return None
    if node.op_type in _CASTS:
        # A cast of a number would not be a mask; what is tested must be the operand as it is seen where the product is.
        return find_condition(context, holder, node.input[0], operand, seen_from or scope, is_loose=is_loose)
    if node.op_type == "Where" and len(node.input) == 3:
        values = [number_of(context, holder, item) for item in node.input[1:]]
        test = find_condition(context, holder, node.input[0], operand, seen_from or scope, is_loose=is_loose)
        if test is not None and values == [1.0, 0.0]:
            return test
        if test is not None and values == [0.0, 1.0]:
            return negated(test)
    return None


def negated(condition: Condition) -> Condition:
    """Return the condition that holds where another does not; NaN, for which comparisons are false, aside."""
    return replace(condition, above=not condition.above)


def find_condition(
    context: Context,
    scope: Scope,
    name: str,
    operand: str,
    seen_from: Scope | None = None,
    *,
    is_loose: bool = False,
) -> Condition | None:
    """Return what a condition says of a value, None if it is no comparison of it with a constant.

    Args:
        context: The model.
        scope: Where the condition is seen.
        name: The condition.
        operand: The value that it should be about.
        seen_from: Where the value is seen, if not where the condition is.
        is_loose: Whether the value before and behind a quantiser is one and the same.
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
        for value, bound, side in ((*node.input, 1), (*reversed(node.input), -1)):
            widened = 0 if origin(scope, value) == wanted else _cast_of(context, scope, value, wanted)
            number = number_of(context, scope, bound) if widened is not None else None
            if widened is None or (number is None and not is_constant(context, scope, bound)):
                continue
            sign, is_strict = _ORDERS[node.op_type]
            above = sign * side > 0
            condition = Condition(scope, str(value), str(bound), number, above, above == is_strict, widened)
            return condition if positive else negated(condition)
        return None
    return None


def is_constant(context: Context, scope: Scope, name: str, depth: int = 0) -> bool:
    """Tell whether a value depends on constants alone, whose data need not be there: they are not looked at."""
    found = context.constants.definition(scope, name)
    if isinstance(found, NotConstant) or depth > _FAR:
        return False
    holder, item = found
    if isinstance(item, onnx.TensorProto):
        return True
    if item is None or normal_domain(item.domain) or not item.output:
        return False
    if item.op_type == "Constant":
        return True
    computed = item.op_type in FOLDED or item.op_type in _COMPUTED
    return computed and bool(item.input) and all(is_constant(context, holder, one, depth + 1) for one in item.input)


def _cast_of(context: Context, scope: Scope, name: str, wanted: tuple[Scope, str]) -> int | None:
    """Return the element type that a value is cast to, None where it is no Cast of the wanted one."""
    found = context.constants.producer(scope, name)
    if found is None or found[1].op_type != "Cast" or normal_domain(found[1].domain) or not found[1].input:
        return None
    holder, node = found
    to = next((int(item.i) for item in node.attribute if item.name == "to"), 0)
    return to if to in FLOAT_NUMBERS and context.constants.origin(holder, node.input[0]) == wanted else None
