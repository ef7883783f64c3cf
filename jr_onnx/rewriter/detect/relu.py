"""Relu(z) -> J(z). Every version of the standard operator, in any floating type."""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewriter.scopes import Scope


def detect_relu(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match the standard operator Relu (1, 6, 13, 14)."""
    inputs, outputs = list(node.input), list(node.output)
    if len(inputs) != 1 or not inputs[0] or len(outputs) != 1 or not outputs[0]:
        return Refused(f"a Relu has one input and one output, found {len(inputs)} and {len(outputs)}")
    if context.is_retrofitted(scope, node, "log_step"):
        return NotASite("it is the end of a JumpReLU already")
    return Match("relu", inputs[0], outputs[0])
