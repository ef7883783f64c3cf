"""ReLUs written with arithmetic: J takes the place of the last node, what it was computed from stays, unused.

    (z + |z|) / 2, 0.5 * (z + |z|), Mean(z, |z|)   -> J(z)
    z - Min(z, 0), -Min(-z, 0)                     -> J(z)     Clip(., max=0) for Min(., 0) too

Where |z| + z overflows the first gives inf, and J gives z.
"""

from __future__ import annotations

import onnx

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.detect.base import Context, Match, Refused
from jr_onnx.rewriter.detect.bounds import clip_bounds
from jr_onnx.rewriter.detect.zeros import enlarges, is_number, number_of
from jr_onnx.rewriter.scopes import Scope

Value = tuple[Scope, str]


def detect_scaled(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Mul or Div that halves z + |z|, and Mul by -1 that takes Min(-z, 0) back."""
    if len(node.input) != 2:
        return None
    first, second = str(node.input[0]), str(node.input[1])
    for value, factor in ((first, second),) if node.op_type == "Div" else ((first, second), (second, first)):
        number = number_of(context, scope, factor)
        if number is None:
            continue
        if (node.op_type, number) in (("Mul", 0.5), ("Div", 2.0)):
            found = _sum_with_absolute(context, scope, value)
            return _match(context, scope, node, "abs", found, factor) if found is not None else None
        if number == -1:
            return _negated_minimum(context, scope, node, value, factor)
    return None


def detect_neg(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match -Min(-z, 0)."""
    return _negated_minimum(context, scope, node, node.input[0], "")


def detect_sub(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match z - Min(z, 0)."""
    if len(node.input) != 2:
        return None
    if is_number(context, scope, node.input[0], 0) is not None:
        return _negated_minimum(context, scope, node, node.input[1], node.input[0])
    lower = _minimum(context, scope, node.input[1])
    if lower is None or context.constants.origin(*lower[0]) != context.constants.origin(scope, node.input[0]):
        return None
    return _match(context, scope, node, "min", (scope, str(node.input[0])), "") if lower[1] is None else lower[1]


def detect_mean(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Mean(z, |z|)."""
    found = _with_absolute(context, scope, list(node.input))
    return _match(context, scope, node, "abs", found, "") if found is not None else None


def _negated_minimum(
    context: Context, scope: Scope, node: onnx.NodeProto, value: str, factor: str
) -> Match | Refused | None:
    lower = _minimum(context, scope, value)
    if lower is None:
        return None
    operand, refused = lower
    negated = _negated(context, *operand)
    if negated is None:
        return None
    return refused if refused is not None else _match(context, scope, node, "min", negated, factor)


def _match(
    context: Context, scope: Scope, node: onnx.NodeProto, form: str, found: Value, factor: str
) -> Match | Refused | None:
    """Return the match, if its operand is seen under the same name where the node stands."""
    holder, name = found
    if context.constants.origin(scope, name) != context.constants.origin(holder, name):
        return None
    refused = enlarges(context, scope, name, factor) if factor else None
    return refused if refused is not None else Match(form, name, node.output[0])


def _sum_with_absolute(context: Context, scope: Scope, name: str) -> Value | None:
    found = context.constants.producer(scope, name)
    if found is None or found[1].op_type not in ("Add", "Sum") or normal_domain(found[1].domain):
        return None
    return _with_absolute(context, found[0], list(found[1].input))


def _with_absolute(context: Context, scope: Scope, names: list[str]) -> Value | None:
    """Return z for the two names z and |z|."""
    if len(names) != 2:
        return None
    for name, other in (names, names[::-1]):
        found = context.constants.producer(scope, other)
        if found is None or found[1].op_type != "Abs" or normal_domain(found[1].domain) or not found[1].input:
            continue
        if context.constants.origin(found[0], found[1].input[0]) == context.constants.origin(scope, name):
            return scope, str(name)
    return None


def _negated(context: Context, scope: Scope, name: str) -> Value | None:
    """Return z for a value that is -z."""
    found = context.constants.producer(scope, name)
    if found is None or normal_domain(found[1].domain) or not found[1].input:
        return None
    holder, node = found
    if node.op_type == "Neg":
        return holder, str(node.input[0])
    if node.op_type == "Sub" and len(node.input) == 2 and is_number(context, holder, node.input[0], 0) is not None:
        return holder, str(node.input[1])
    if node.op_type == "Mul" and len(node.input) == 2:
        for value, factor in (node.input, node.input[::-1]):
            if is_number(context, holder, factor, -1) is not None:
                return holder, str(value)
    return None


def _minimum(context: Context, scope: Scope, name: str) -> tuple[Value, Refused | None] | None:
    """Return z for a value that is min(z, 0), and a refusal where its zero might enlarge it."""
    found = context.constants.producer(scope, name)
    if found is None or normal_domain(found[1].domain) or not found[1].input:
        return None
    holder, node = found
    if node.op_type == "Min" and len(node.input) == 2:
        for value, bound in (node.input, node.input[::-1]):
            if is_number(context, holder, bound, 0) is not None:
                return (holder, str(value)), enlarges(context, holder, value, bound)
    if node.op_type == "Clip" and clip_bounds(context, holder, node) == (None, 0.0):
        return (holder, str(node.input[0])), None
    return None
