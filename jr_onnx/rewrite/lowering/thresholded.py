"""z -> ThresholdedRelu(z; alpha=kappa): one standard node, from opset 10; its definition is J.

ONNX Runtime has no CPU kernel for double and bfloat16, and no CUDA kernel from opset 22 on; `choose` knows.
"""

from __future__ import annotations

import onnx
from onnx import helper

from jr_onnx.rewrite.lowering.base import Jump, Names, allows


def thresholded_allowed(opset: int, dtype: str) -> bool:
    """Tell whether ThresholdedRelu exists at this opset for the element type."""
    return opset >= 10 and allows("ThresholdedRelu", opset, dtype)


def lower_thresholded(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as one ThresholdedRelu."""
    del names
    return [helper.make_node("ThresholdedRelu", [jump.operand], [jump.result], name=jump.node_name, alpha=jump.kappa)]
