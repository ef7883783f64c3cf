"""A model as text for the golden files: every node, name and attribute, written without the package's own code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper


def render(model: onnx.ModelProto) -> str:
    """Return the whole model but its metadata, a line a node."""
    return "\n".join(_model(model))


def _model(model: onnx.ModelProto) -> Iterator[str]:
    yield f"ir_version {model.ir_version}; {_opsets(model.opset_import)}"
    yield from _graph(model.graph, "")
    for function in model.functions:
        overload = f":{function.overload}" if function.overload else ""
        parameters = [*function.attribute, *(f"{item.name}={_value(item)}" for item in function.attribute_proto)]
        inner = f" <{', '.join(parameters)}>" if parameters else ""
        yield (
            f"function {function.domain}.{function.name}{overload}{inner}"
            f"({', '.join(function.input)}) => ({', '.join(function.output)}); {_opsets(function.opset_import)}"
        )
        for node in function.node:
            yield from _node(node, "  ")


def _graph(graph: onnx.GraphProto, indent: str) -> Iterator[str]:
    inputs, outputs = (", ".join(_typed(value) for value in part) for part in (graph.input, graph.output))
    yield f"{indent}{graph.name}({inputs}) => ({outputs})"
    for value in graph.value_info:
        yield f"{indent}  info {_typed(value)}"
    for tensor in graph.initializer:
        yield f"{indent}  init {tensor.name} = {_tensor(tensor)}"
    for node in graph.node:
        yield from _node(node, indent + "  ")


def _node(node: onnx.NodeProto, indent: str) -> Iterator[str]:
    plain = [item for item in node.attribute if not item.HasField("g")]
    attributes = f" <{', '.join(f'{item.name}={_value(item)}' for item in plain)}>" if plain else ""
    domain = f"{node.domain}." if node.domain else ""
    overload = f":{node.overload}" if node.overload else ""
    outputs = ", ".join(node.output)
    label = "" if node.name == outputs else f"[{node.name}] "
    inputs = ", ".join(name or '""' for name in node.input)
    yield f"{indent}{label}{outputs} = {domain}{node.op_type}{overload}{attributes}({inputs})"
    for item in node.attribute:
        if item.HasField("g"):
            yield f"{indent}  {item.name}:"
            yield from _graph(item.g, indent + "    ")


def _typed(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ",".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{_type(tensor.elem_type)}[{dims}] {value.name}"


def _type(number: int) -> str:
    return TensorProto.DataType.Name(number).lower()


def _tensor(tensor: onnx.TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    numbers = [repr(float(item)) if array.dtype.kind in "fV" else str(item) for item in np.ravel(array)]
    return f"{_type(tensor.data_type)}{list(tensor.dims)} {{{', '.join(numbers)}}}"


def _value(attribute: AttributeProto) -> str:
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    if attribute.HasField("t"):
        return _tensor(attribute.t)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, float):
        return repr(float(np.float32(value)))
    if isinstance(value, list) and value and isinstance(value[0], float):
        return str([float(np.float32(item)) for item in value])
    return str(value)


def _opsets(imports: object) -> str:
    return ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in imports)  # type: ignore[attr-defined]
