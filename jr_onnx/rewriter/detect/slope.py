"""Activations with a slope below zero that is 0, which makes them ReLUs: the node becomes J.

    LeakyRelu(z; alpha=0), PRelu(z, 0), Elu(z; alpha=0), Selu(z; alpha=0, gamma=1), ThresholdedRelu(z; alpha=0)  -> J(z)

With any other slope they let negative values through and are not ReLUs. A slope of 0 times -inf is NaN, where J is 0.
"""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewriter.detect.zeros import is_number, uncertain
from jr_onnx.rewriter.scopes import Scope

_DEFAULT_ALPHA = {"LeakyRelu": 0.01, "Elu": 1.0, "Selu": 1.67326319217681884765625, "ThresholdedRelu": 1.0}
_DEFAULT_GAMMA = 1.05070102214813232421875


def detect_slope(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match LeakyRelu, Elu and Selu whose alpha is 0."""
    alpha = _number(context, scope, node, "alpha", _DEFAULT_ALPHA[str(node.op_type)])
    if isinstance(alpha, Refused):
        return alpha
    if alpha != 0:
        return NotASite(f"{node.op_type} lets negative values through, so it is not a ReLU")
    gamma = _number(context, scope, node, "gamma", _DEFAULT_GAMMA) if node.op_type == "Selu" else 1.0
    if isinstance(gamma, Refused) or gamma != 1:
        return Refused("this Selu has alpha 0, which makes it a ReLU times its gamma; write it as Relu and Mul")
    return Match("slope", node.input[0], node.output[0])


def detect_prelu(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match PRelu whose slopes are all 0."""
    if len(node.input) != 2:
        return Refused(f"a PRelu has two inputs, found {len(node.input)}")
    if is_number(context, scope, node.input[1], 0) is not None:
        return Match("slope", node.input[0], node.output[0])  # a slope never enlarges: it is broadcast to z alone
    doubt = uncertain(context, scope, node.input[1])
    if doubt:
        return Refused(f"the slope of this PRelu may be 0, which makes it a ReLU, but is not known: {doubt}")
    return NotASite("PRelu lets negative values through, so it is not a ReLU")


def detect_thresholded(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match ThresholdedRelu with alpha 0, unless a rewrite wrote it: then it is a jump with kappa 0."""
    alpha = _number(context, scope, node, "alpha", _DEFAULT_ALPHA["ThresholdedRelu"])
    if alpha == 0 and not context.is_retrofitted(scope, node, "thresholded"):
        return Match("thresholded", node.input[0], node.output[0])
    return NotASite("it is a ThresholdedRelu already")


def _number(context: Context, scope: Scope, node: onnx.NodeProto, name: str, default: float) -> float | Refused:
    attribute = context.constants.attribute(scope, node, name)
    if isinstance(attribute, NotConstant):
        return Refused(f"the {name} of this {node.op_type} is not constant: {attribute.reason}")
    return default if attribute is None else float(attribute.f)
