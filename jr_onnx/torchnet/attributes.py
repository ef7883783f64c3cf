"""Read a node's attributes as Python values and tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import AttributeProto
from torch import Tensor

from jr_onnx.torchnet.registry import Attribute, Node

_TYPES = (
    AttributeProto.FLOAT,
    AttributeProto.FLOATS,
    AttributeProto.INT,
    AttributeProto.INTS,
    AttributeProto.STRING,
    AttributeProto.STRINGS,
    AttributeProto.TENSOR,
)
_KEEPS_TYPE = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze")


def read_attributes(
    proto: onnx.NodeProto,
    bound: Mapping[str, AttributeProto],
    read_tensor: Callable[[onnx.TensorProto], Tensor | None],
) -> dict[str, Attribute]:
    """Return a node's attributes by name; those of kinds that no operator here has (graphs, types) are left out.

    Args:
        proto: The node.
        bound: The attributes that the function around the node was called with.
        read_tensor: Turns a tensor attribute into torch's, or None where that is impossible.
    """
    result: dict[str, Attribute] = {}
    for attribute in proto.attribute:
        source: AttributeProto | None = attribute
        if attribute.ref_attr_name:
            source = bound.get(attribute.ref_attr_name)
        if source is None or source.type not in _TYPES:
            continue
        value = onnx.helper.get_attribute_value(source)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        elif isinstance(value, onnx.TensorProto):
            value = read_tensor(value)
            if value is None:
                continue
        elif not isinstance(value, int | float | str):
            value = list(value)
        result[str(attribute.name)] = value
    return result


def output_type(proto: onnx.NodeProto, node: Node | None) -> int:
    """Return the element type of a node's output where its attributes tell it, or its kind passes it on."""
    if node is None:
        return 0
    if proto.op_type == "Cast":
        return int(node.attr("to", 0))
    if proto.op_type == "Constant":
        return next((int(item.t.data_type) for item in proto.attribute if item.name == "value"), 0)
    if proto.op_type in _KEEPS_TYPE:
        return node.element_type(0)
    return 0
