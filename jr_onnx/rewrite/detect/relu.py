"""Relu(z) -> J(z). Every version of the standard operator, in any floating type."""

from __future__ import annotations

import onnx

from jr_onnx.rewrite.detect.base import Context, Match, Refused
from jr_onnx.rewrite.scopes import Scope


def detect_relu(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | None:
    """Match the standard operator Relu (1, 6, 13, 14)."""
    del context, scope
    if len(node.input) != 1 or not node.input[0] or len(node.output) != 1 or not node.output[0]:
        return Refused(f"a Relu has one input and one output, found {len(node.input)} and {len(node.output)}")
    return Match("relu", node.input[0], node.output[0])
