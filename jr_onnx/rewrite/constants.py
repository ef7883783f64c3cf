"""Prove that a value is constant, and read it: initializers, Constant nodes, and Identity or Cast of these.

An initializer that is also a graph input can be overridden by a caller from IR 4 on, so it proves nothing there;
and one that is an input of the body of a Loop or Scan is overridden at every IR version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from jr_onnx.rewrite.scopes import Scope

_MAX_ELEMENTS = 4096
_MAX_CHAIN = 16
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True, slots=True)
class NotConstant:
    """Why a value could not be proved constant."""

    reason: str


class ConstantFinder:
    """Look up constants from any scope; producers and initializers are indexed once per scope."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._ir_version = model.ir_version
        self._index: dict[Scope, tuple[dict[str, onnx.NodeProto], dict[str, onnx.TensorProto], set[str]]] = {}

    def value(self, scope: Scope, name: str) -> npt.NDArray[np.generic] | NotConstant:
        """Return the array a name stands for, or why it is not known to be constant."""
        for _ in range(_MAX_CHAIN):
            found = self._lookup(scope, name)
            if isinstance(found, NotConstant):
                return found
            holder, item = found
            if isinstance(item, onnx.TensorProto):
                return _read(item, name)
            if item.op_type == "Constant":
                return _constant_node(item, name)
            if item.input and (item.op_type == "Identity" or (item.op_type == "Cast" and _casts_to_float(item))):
                scope, name = holder, item.input[0]
                continue
            return NotConstant(f"{name!r} is computed by {item.op_type}")
        return NotConstant(f"{name!r} is computed by a long chain of nodes")

    def _lookup(self, scope: Scope, name: str) -> tuple[Scope, onnx.NodeProto | onnx.TensorProto] | NotConstant:
        current: Scope | None = scope
        while current is not None:
            producers, initializers, inputs = self._of(current)
            if name in initializers:
                if name in inputs and (self._ir_version >= 4 or not current.is_main):
                    return NotConstant(f"{name!r} is an initializer that a caller may override")
                return current, initializers[name]
            if name in inputs:
                kind = "function" if current.function is not None and current.graph is None else "graph"
                return NotConstant(f"{name!r} is a {kind} input")
            if name in producers:
                return current, producers[name]
            current = current.parent
        return NotConstant(f"{name!r} is not defined")

    def _of(self, scope: Scope) -> tuple[dict[str, onnx.NodeProto], dict[str, onnx.TensorProto], set[str]]:
        if scope not in self._index:
            producers = {name: node for node in scope.nodes for name in node.output if name}
            graph = scope.graph
            initializers = {tensor.name: tensor for tensor in graph.initializer} if graph is not None else {}
            if graph is not None:
                inputs = {value.name for value in graph.input}
            else:
                inputs = set(scope.function.input) if scope.function is not None else set()
            self._index[scope] = (producers, initializers, inputs)
        return self._index[scope]


def _read(tensor: onnx.TensorProto, name: str) -> npt.NDArray[np.generic] | NotConstant:
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return NotConstant(f"{name!r} lies in external data, which is not read")
    if count > _MAX_ELEMENTS:
        return NotConstant(f"{name!r} has {count} elements")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        return NotConstant(f"{name!r} cannot be read: {error}")


def _casts_to_float(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "to" and attribute.i in _FLOATS for attribute in node.attribute)


def _constant_node(node: onnx.NodeProto, name: str) -> npt.NDArray[np.generic] | NotConstant:
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return NotConstant(f"{name!r} is the function's attribute {attribute.ref_attr_name!r}")
        if attribute.name == "value" and attribute.HasField("t"):
            return _read(attribute.t, name)
        if attribute.name == "value_float":
            return np.asarray(attribute.f, dtype=np.float32)
        if attribute.name == "value_int":
            return np.asarray(attribute.i, dtype=np.int64)
        if attribute.name == "value_floats":
            return np.asarray(list(attribute.floats), dtype=np.float32)
        if attribute.name == "value_ints":
            return np.asarray(list(attribute.ints), dtype=np.int64)
    return NotConstant(f"{name!r} is a Constant without a numeric value")
