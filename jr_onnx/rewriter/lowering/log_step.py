"""z -> Relu(Sum(z, Log(HardSigmoid(z; alpha=2^m, beta=-kappa 2^m)))): J at opset 6.

There ONNX Runtime has no Sub, Greater and Mul. HardSigmoid is clamp(alpha z + beta, 0, 1). With 2^m the reciprocal of
the spacing of numbers at kappa, alpha z is exact and so is the sum next to kappa: 0 up to kappa, and at least 1 from
the next number on. Its logarithm is -inf or 0, which takes z away or leaves it as it is, bit for bit; Relu makes 0 of
-inf. So only NaN differs from J: it stays NaN.

For kappa below 2^-100 the factor would overflow; then z is magnified by 2^100 first, by a HardSigmoid of its own.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from jr_onnx.rewriter.lowering.base import Jump, Names
from jr_onnx.semantics import one_kappa

OPSET = 6
WITHOUT_KERNEL = frozenset({
    "Add", "And", "AveragePool", "BatchNormalization", "Div", "Dropout", "Equal", "GRU", "Gemm", "Greater", "LSTM",
    "Less", "Mul", "Or", "PRelu", "Pow", "RNN", "Sub", "Upsample", "Xor",
})  # fmt: skip
"""Operators that opset 6 has and ONNX Runtime (1.32, measured) does not run there."""
_SMALL = 2.0**-100


def log_step_allowed(opset: int, dtype: str, *, variable: bool) -> bool:
    """Tell whether J can be written like this: float32, for ONNX Runtime has no other kernels of these operators."""
    return opset == OPSET and dtype == "float32" and not variable


def lower_log_step(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as one or two HardSigmoid, Log, Sum, Relu."""
    kappa = float(np.float32(one_kappa(jump.kappa, jump.base, "this lowering")))
    # Of float32: 24 bits, and no exponent below that of the smallest subnormal number.
    spacing = 2.0 ** max(math.frexp(kappa)[1] - 24, -149) if kappa else 2.0**-149
    nodes: list[onnx.NodeProto] = []
    operand = jump.operand
    if kappa < _SMALL:
        nodes.append(_node("HardSigmoid", [operand], names, jump, "magnified", alpha=1 / _SMALL, beta=0.0))
        operand, kappa, spacing = str(nodes[-1].output[0]), kappa / _SMALL, spacing / _SMALL
    nodes.append(_node("HardSigmoid", [operand], names, jump, "step", alpha=1 / spacing, beta=-kappa / spacing))
    nodes.append(_node("Log", [str(nodes[-1].output[0])], names, jump, "log"))
    nodes.append(_node("Sum", [jump.operand, str(nodes[-1].output[0])], names, jump, "kept"))
    nodes.append(helper.make_node("Relu", [str(nodes[-1].output[0])], [jump.result], name=jump.node_name))
    return nodes


def _node(op_type: str, inputs: list[str], names: Names, jump: Jump, what: str, **attributes: float) -> onnx.NodeProto:
    name = names.fresh(f"{jump.base}/jr_{what}")
    node = helper.make_node(op_type, inputs, [name], name=name)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node
