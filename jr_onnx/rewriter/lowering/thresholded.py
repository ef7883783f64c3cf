"""z -> ThresholdedRelu(z; alpha=kappa): one standard node, from opset 10; its definition is J.

ONNX Runtime has no CPU kernel for double and bfloat16, and no CUDA kernel from opset 22 on; `choose` knows.
"""

from __future__ import annotations

import onnx

from jr_onnx.rewriter.lowering.base import Jump, Names, allows
from jr_onnx.semantics import one_kappa


def thresholded_allowed(opset: int, dtype: str) -> bool:
    """Tell whether ThresholdedRelu exists at this opset for the element type."""
    return opset >= 10 and allows("ThresholdedRelu", opset, dtype)


def lower_thresholded(jump: Jump, names: Names) -> list[onnx.NodeProto]:
    """Write J as one ThresholdedRelu."""
    del names
    # `onnx.helper.make_node` makes the same, at four times the cost.
    node = onnx.NodeProto(
        op_type="ThresholdedRelu", input=[jump.operand], output=[jump.result], name=jump.node_name or None
    )
    node.attribute.add(
        name="alpha", type=onnx.AttributeProto.FLOAT, f=one_kappa(jump.kappa, jump.base, "this lowering")
    )
    return [node]
