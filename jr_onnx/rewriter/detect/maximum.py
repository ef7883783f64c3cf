"""Max(z, 0) -> J(z), in any order; Max(z, 0, c) with constants c <= 0 likewise.

The zero is any value proved to be zero throughout (`zeros`) that does not enlarge the result by broadcasting. Min and
Max pairs need nothing more: what bounds from above stays where it is, before or behind J.
"""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.detect.base import Context, Match, Refused
from jr_onnx.rewriter.detect.zeros import enlarges, number_of, uncertain
from jr_onnx.rewriter.scopes import Scope


def detect_max(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match Max (1, 6, 8, 12, 13) with a constant zero among its inputs."""
    numbers = [number_of(context, scope, name) for name in node.input]
    operands = [str(name) for name, number in zip(node.input, numbers, strict=True) if number is None]
    constants = [number for number in numbers if number is not None]
    if not operands:
        return None
    if not constants or max(constants) != 0:
        doubt = next((why for name in operands if (why := uncertain(context, scope, name))), "")
        if doubt and len(node.input) == 2 and not constants:
            return Refused(f"the bound of this Max may be 0, but is not known: {doubt}")
        return None
    if len(operands) > 1:
        return Refused(f"this Max has {len(node.input)} inputs, one of them 0; only Max(x, 0) is taken for a ReLU")
    (operand,) = operands
    if not operand:
        return Refused("this Max compares 0 with an input that is left out")
    for name, number in zip(node.input, numbers, strict=True):
        refused = enlarges(context, scope, operand, name) if number is not None else None
        if refused is not None:
            return refused
    return Match("max", operand, node.output[0])
