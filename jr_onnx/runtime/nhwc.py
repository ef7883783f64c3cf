"""ONNX Runtime's own layout: a graph that its CUDA provider laid out as (N, H, W, C), in the standard one again.

    Conv of com.ms.internal.nhwc   ->   Transpose, Conv, Transpose

ONNX does not know the operators of that domain, and infers no shapes behind them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from jr_onnx.modelfile import copied
from jr_onnx.rewriter.scopes import main_scope, substitute

NHWC = "com.ms.internal.nhwc"
_RANK_OF_IMAGES = 4


def in_standard_layout(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes the same without operators of the layout (N, H, W, C) in its main graph."""
    if not any(node.domain == NHWC for node in model.graph.node):
        return model
    plain = copied(model)
    main = main_scope(plain)
    ranks = {str(tensor.name): len(tensor.dims) for tensor in plain.graph.initializer}
    marks = {index: _rank(node, ranks) for index, node in enumerate(main.nodes) if node.domain == NHWC}
    substitute({main: marks}, _standard)
    return plain


def _standard(node: onnx.NodeProto, rank: int) -> list[onnx.NodeProto]:
    outer, inner = (f"{node.output[0]}/jr_{what}_channels_first" for what in ("operand", "result"))
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    one = copied(node)
    one.domain, one.input[0], one.output[0] = "", outer, inner
    return [
        helper.make_node("Transpose", [node.input[0]], [outer], perm=first), one,
        helper.make_node("Transpose", [inner], [node.output[0]], perm=last),
    ]  # fmt: skip


def _rank(node: onnx.NodeProto, ranks: Mapping[str, int]) -> int:
    """Return the rank of a node's operand: from its kernel, from its weights, else that of images."""
    kernel = next((len(item.ints) + 2 for item in node.attribute if item.name == "kernel_shape"), 0)
    return kernel or (ranks.get(node.input[1], 0) if len(node.input) > 1 else 0) or _RANK_OF_IMAGES
