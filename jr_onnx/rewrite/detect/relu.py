"""Relu(z) -> J(z). Every version of the standard operator, in any floating type."""

from __future__ import annotations

import onnx

from jr_onnx.rewrite.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewrite.scopes import Scope


def detect_relu(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match the standard operator Relu (1, 6, 13, 14)."""
    if len(node.input) != 1 or not node.input[0] or len(node.output) != 1 or not node.output[0]:
        return Refused(f"a Relu has one input and one output, found {len(node.input)} and {len(node.output)}")
    if context.is_own_jump(scope, node, "log_step"):
        return NotASite("it is the end of a JumpReLU already")
    return Match("relu", node.input[0], node.output[0])
