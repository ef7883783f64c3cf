"""ReLUs that a quantiser has put where no jump can take their place: they are named.

- QLinearLeakyRelu with alpha 0, and QLinearWhere(z > 0, z, 0), which compute with integers alone;
- z times a mask that is itself quantised, for 1 need not stay 1.
"""

from __future__ import annotations

import numpy as np
import onnx

from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context, Refused
from jr_onnx.rewriter.detect.comparison import is_mask, is_test
from jr_onnx.rewriter.scopes import Scope

_DEFAULT_ALPHA = 0.01
_ADVICE = "retrofit the float model and quantise that (docs/quantised.md)"
_IN_INTEGERS = Refused(
    f"it is a ReLU in integers, which has no JumpReLU form; {_ADVICE}, or quantise in the QDQ format"
)


def refuse_quantised(context: Context, scope: Scope, node: onnx.NodeProto, domain: str) -> Refused | None:
    """Return why a ReLU that has been quantised cannot be rewritten, None for any other node."""
    inputs = list(node.input)
    if (domain, node.op_type) == ("com.microsoft", "QLinearLeakyRelu"):
        alpha = context.constants.attribute(scope, node, "alpha")
        if not isinstance(alpha, NotConstant) and (_DEFAULT_ALPHA if alpha is None else alpha.f) == 0:
            return _IN_INTEGERS
    if (domain, node.op_type) == ("com.microsoft", "QLinearWhere") and len(inputs) > 6:
        for value, other, is_positive in ((1, 4, True), (4, 1, False)):
            if _is_zero(context, scope, inputs[other], inputs[other + 2]) and (
                is_test(context, scope, inputs[0], inputs[value]) == is_positive
            ):
                return _IN_INTEGERS
    pairs = {("", "Mul"): (0, 1), ("com.microsoft", "QLinearMul"): (0, 3)}.get((domain, str(node.op_type)))
    if pairs is not None and len(inputs) > pairs[1]:
        first, second = inputs[pairs[0]], inputs[pairs[1]]
        if is_mask(context, scope, first, second) or is_mask(context, scope, second, first):
            return Refused(
                f"it is a ReLU, z times 1 where z > 0, whose parts have been quantised; {_ADVICE}, or leave this "
                f"{node.op_type} and the Cast in front of it out when quantising (nodes_to_exclude)"
            )
    return None


def _is_zero(context: Context, scope: Scope, name: str, zero_point: str) -> bool:
    value, zero = context.constants.value(scope, name), context.constants.value(scope, zero_point)
    if isinstance(value, NotConstant) or isinstance(zero, NotConstant):
        return False
    return bool(value.size and zero.size == 1 and np.all(value == zero.reshape(-1)[0]))
