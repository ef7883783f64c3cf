"""Operators that ONNX defines by other operators (Attention, CenterCropPad, ...), as functions to inline.

node Attention  ->  a model-local function with the body that the operator's schema gives for this node
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, defs

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.scopes import Scope, function_scopes, walk
from jr_onnx.torchnet.registry import TABLE

_CONTROL_FLOW = "If"


def expand(proto: onnx.NodeProto, version: int, element_types: Sequence[int]) -> Scope | None:
    """Return the body of a standard operator as a function's scope.

    Args:
        proto: The node.
        version: Version of the standard operator set.
        element_types: Element types of the node's inputs; 0, where they are not known, stands for float32.

    Returns:
        None where the schema gives no body, or one with operators that cannot be evaluated either.
    """
    try:
        schema = defs.get_schema(str(proto.op_type), version, "")
        content = _body(schema, proto, version, element_types)
    except (defs.SchemaError, RuntimeError, ValueError):
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(content)
    if not function.node:
        return None
    function.domain, function.name = "ai.onnx", str(proto.op_type)
    if not any(normal_domain(entry.domain) == "" for entry in function.opset_import):
        function.opset_import.append(onnx.helper.make_opsetid("", version))
    given = {attribute.name for attribute in (*proto.attribute, *function.attribute_proto)}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            function.attribute_proto.append(attribute.default_value)
    (scope,) = function_scopes(onnx.ModelProto(functions=[function]))
    return scope if all(_registered(node) for inner in walk(scope) for node in inner.nodes) else None


def _body(schema: Any, proto: onnx.NodeProto, version: int, element_types: Sequence[int]) -> bytes:
    """Return the serialised FunctionProto, empty where there is none; onnx's stubs lack these members of a schema."""
    if schema.has_function:
        function: bytes = schema.get_function_with_opset_version(version)
        return function
    if not schema.has_context_dependent_function:
        return b""
    types = []
    for name, element_type in zip(proto.input, element_types, strict=True):
        kind = onnx.TypeProto()
        if name:
            kind.tensor_type.elem_type = element_type or TensorProto.FLOAT
        types.append(kind.SerializeToString())
    built: bytes = schema.get_context_dependent_function_with_opset_version(version, proto.SerializeToString(), types)
    return built


def _registered(node: onnx.NodeProto) -> bool:
    return node.op_type == _CONTROL_FLOW or (normal_domain(node.domain), node.op_type) in TABLE
