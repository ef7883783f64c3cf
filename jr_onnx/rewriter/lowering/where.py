"""z -> Where(Greater(Sub(z, kappa), 0), z, 0): three standard nodes, from opset 9.

A kappa per channel is a constant of shape (C, 1, ..., 1), which broadcasts over (N, C, ...).

At opset 7 and 8, which have no Where (and for types that Where does not take yet), `cast_mul`:

    c = max(z, lowest finite)     so that -inf gives 0, not NaN
    z -> Mul(c, Cast(Greater(Sub(c, kappa), 0)))

There NaN stays NaN, and negative operands give -0.0, which equals 0. kappa may be a scalar computed at run time.
"""

from __future__ import annotations

import math

import onnx
from onnx import helper

from jr_onnx.element_types import LARGEST, NUMBERS
from jr_onnx.rewriter.lowering.base import Jump, Names, allows, constant

_CLIP_WITH_INPUTS = 11
_MAX_BROADCASTS = 8


def where_allowed(opset: int, dtype: str) -> bool:
    """Tell whether Sub, Greater and Where of this opset take the element type."""
    return opset >= 9 and all(allows(op, opset, dtype) for op in ("Sub", "Greater", "Where"))


def cast_mul_allowed(opset: int, dtype: str) -> bool:
    """Tell whether the form with Cast and Mul is possible at this opset for the element type."""
    if opset < 7 or (opset < _MAX_BROADCASTS and dtype == "float64"):
        return False
    return all(allows(op, opset, dtype) for op in (_lower_bound(opset, dtype), "Sub", "Greater", "Mul"))


def where_operators() -> tuple[str, ...]:
    """Return the operators that `lower_where` writes besides casts of a kappa known at run time."""
    return ("Constant", "Sub", "Greater", "Where")


def cast_mul_operators(opset: int, dtype: str) -> tuple[str, ...]:
    """Return the operators that `lower_cast_mul` writes."""
    return ("Constant", _lower_bound(opset, dtype), "Sub", "Greater", "Cast", "Mul")


def _lower_bound(opset: int, dtype: str) -> str:
    """Return the operator that bounds from below; ONNX Runtime has no Clip with attributes for double."""
    return "Max" if opset >= _CLIP_WITH_INPUTS or dtype == "float64" else "Clip"


def lower_where(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as Sub, Greater, Where."""
    nodes, kappa = _kappa(jump, names)
    zero = constant(names, jump.base, "zero", 0.0, jump.dtype)
    shifted = names.fresh(f"{jump.base}/jr_shifted")
    above = names.fresh(f"{jump.base}/jr_above")
    return [
        *nodes,
        zero,
        helper.make_node("Sub", [jump.operand, kappa], [shifted], name=shifted),
        helper.make_node("Greater", [shifted, zero.output[0]], [above], name=above),
        helper.make_node("Where", [above, jump.operand, zero.output[0]], [jump.result], name=jump.node_name),
    ]


def lower_cast_mul(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as Clip (or Max), Sub, Greater, Cast, Mul."""
    nodes, kappa = _kappa(jump, names)
    zero = constant(names, jump.base, "zero", 0.0, jump.dtype)
    finite = names.fresh(f"{jump.base}/jr_finite")
    shifted = names.fresh(f"{jump.base}/jr_shifted")
    above = names.fresh(f"{jump.base}/jr_above")
    mask = names.fresh(f"{jump.base}/jr_mask")
    return [
        *nodes,
        zero,
        *_bound_below(jump, names, finite),
        helper.make_node("Sub", [finite, kappa], [shifted], name=shifted),
        helper.make_node("Greater", [shifted, zero.output[0]], [above], name=above),
        helper.make_node("Cast", [above], [mask], name=mask, to=NUMBERS[jump.dtype]),
        helper.make_node("Mul", [finite, mask], [jump.result], name=jump.node_name),
    ]


def _bound_below(jump: Jump, names: Names, result: str) -> list[onnx.NodeProto]:
    if _lower_bound(jump.opset, jump.dtype) == "Clip":
        return [helper.make_node("Clip", [jump.operand], [result], name=result, min=-LARGEST[jump.dtype], max=math.inf)]
    low_node = constant(names, jump.base, "lowest", -LARGEST[jump.dtype], jump.dtype)
    return [low_node, helper.make_node("Max", [jump.operand, low_node.output[0]], [result], name=result)]


def _kappa(jump: Jump, names: Names) -> tuple[list[onnx.NodeProto], str]:
    """Return the nodes that bring kappa into the site's dtype, and its name."""
    if jump.runtime is None:
        node = constant(names, jump.base, "kappa", jump.kappa, jump.dtype, jump.rank)
        return [node], node.output[0]
    if jump.dtype == "float32":
        return [], jump.runtime
    cast = names.fresh(f"{jump.base}/jr_kappa")
    return [helper.make_node("Cast", [jump.runtime], [cast], name=cast, to=NUMBERS[jump.dtype])], cast
