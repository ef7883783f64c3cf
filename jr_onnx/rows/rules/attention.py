"""Attention as one operator: each row attends to itself alone, as long as no input ties rows together."""

from __future__ import annotations

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import rule
from jr_onnx.rows.value import ALONE, NotProvedError, fixed, like


@rule("Attention")
def attention(node: Node) -> Answer:
    """Attend with queries, keys and values, (N, heads, length, size) or (N, length, size); no masks, no past."""
    if all(value.axis is None for value in node.given()):
        return fixed()
    if len(node.given()) != 3 or len(node.inputs) != 3:
        raise NotProvedError("it has a mask or a past, which are not followed")
    for index, value in enumerate(node.given()):
        if (value.axis, value.block) != (0, ALONE) or value.rank not in (3, 4):
            raise NotProvedError(f"its input {node.names[index]!r} does not have the rows along its first axis")
    if node.outputs > 1:
        raise NotProvedError("its further outputs are not followed")
    query = node.value(0)
    dims = query.dims or ()
    return like(query, (*dims[:-1], node.fresh()))
