"""Zeros and other numbers that a comparison or a bound is made with: found however they were made, and measured.

A zero may be a scalar, a tensor as large as the operand, or ConstantOfShape(Shape(x)). It must not enlarge the result
by broadcasting, for J has the shape of its operand.
"""

from __future__ import annotations

from jr_onnx.rewriter.constants import NotConstant, Uniform
from jr_onnx.rewriter.detect.base import Context, Refused
from jr_onnx.rewriter.detect.shapes import Dims, shown
from jr_onnx.rewriter.scopes import Scope


def is_number(context: Context, scope: Scope, name: str, number: float) -> Uniform | None:
    """Return a value whose every element is the number, None for any other."""
    found = context.constants.uniform(scope, name) if name else None
    return found if isinstance(found, Uniform) and found.value == number else None


def number_of(context: Context, scope: Scope, name: str) -> float | None:
    """Return the number that all elements of a value are, None where there is none."""
    found = context.constants.uniform(scope, name) if name else None
    return found.value if isinstance(found, Uniform) else None


def uncertain(context: Context, scope: Scope, name: str) -> str:
    """Say why a value that may be zero is not known to be; "" for one that is zero, or plainly is not."""
    found = context.constants.uniform(scope, name) if name else None
    if not isinstance(found, NotConstant):
        return ""
    apparent = found.apparent
    may_be = found.unread or (apparent is not None and apparent.size > 0 and not apparent.any())
    return found.reason if may_be else ""


def enlarges(context: Context, scope: Scope, operand: str, name: str) -> Refused | None:
    """Return a refusal where broadcasting a value with the operand might give another shape than the operand's."""
    found = context.constants.uniform(scope, name)
    if isinstance(found, NotConstant) or found.shape == ():
        return None
    if found.like is not None and found.like == context.constants.origin(scope, operand):
        return None
    own = dims_of(context, scope, operand)
    other: Dims | None = found.shape
    if other is None and found.like is not None:
        other = context.shapes.of(*found.like)
    if other is None:
        other = dims_of(context, scope, name)
    if own is not None and other is not None and len(other) <= len(own):
        behind = own[len(own) - len(other) :]
        if all(
            extent == 1 or (extent is not None and extent == known) for extent, known in zip(other, behind, strict=True)
        ):
            return None
    return Refused(f"the shape of its constant {name!r} ({shown(other)}) may enlarge {operand!r} by broadcasting")


def dims_of(context: Context, scope: Scope, name: str) -> Dims | None:
    """Return the dimensions of a value, or of the one that it is a copy of; None for an unknown rank."""
    holder, origin = context.constants.origin(scope, name)
    return context.shapes.of(scope, name) or context.shapes.of(holder, origin)
