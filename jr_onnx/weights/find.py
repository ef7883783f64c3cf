"""Find the tensors of a model that training may change, by what reads them.

    input of ...                                                   role
    Conv, ConvTranspose, Gemm, MatMul, Einsum                      weight, bias
    Batch-, Instance-, Group-, Layer- and RMSNormalization         scale, shift; BatchNormalization's statistics
    Add, Sub and Mul with a constant behind one of those           shift, scale

A weight is an initializer, or the tensor of a Constant node, of a floating type, in the main graph, a branch of an If
or the body of a function. Operators that only move or scale it (Transpose, Cast, Mul) may come between it and its
reader. Constants before the first linear operator are preprocessing, and stay: mean and deviation are not weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import onnx
from onnx import TensorProto

from jr_onnx.element_types import FLOAT_NUMBERS, NAMES
from jr_onnx.errors import ModelError
from jr_onnx.modelfile import external_place, load, readable
from jr_onnx.opsets import normal_domain
from jr_onnx.records import Record
from jr_onnx.rewriter.expansion import expanded_size
from jr_onnx.rewriter.scopes import Scope, all_nodes, all_scopes, function_key, top_scopes

STATISTICS = "statistics"
_MICROSOFT = "com.microsoft"
_MAX_DEPTH = 64
_PRODUCTS = {("", "MatMul"), ("", "Einsum"), (_MICROSOFT, "FusedMatMul")}
_BIASED = {0: "data", 1: "weight", 2: "bias"}
_NORMS = {1: "scale", 2: "shift"}
# Operator -> position of an input -> its role.
_ROLES: dict[tuple[str, str], Mapping[int, str]] = {
    ("", "Conv"): _BIASED,
    ("", "ConvTranspose"): _BIASED,
    ("", "Gemm"): _BIASED,
    (_MICROSOFT, "FusedConv"): _BIASED,
    (_MICROSOFT, "FusedGemm"): _BIASED,
    ("", "BatchNormalization"): {**_NORMS, 3: STATISTICS, 4: STATISTICS},
    ("", "InstanceNormalization"): _NORMS,
    ("", "GroupNormalization"): _NORMS,
    ("", "LayerNormalization"): _NORMS,
    ("", "RMSNormalization"): {1: "scale"},
}
_ELEMENTWISE = {"Add": "shift", "Sub": "shift", "Mul": "scale"}
# What may come between a weight and its reader.
_TRANSPARENT = {
    "Add", "Cast", "Concat", "Div", "Expand", "Flatten", "Identity", "Mul", "Reshape", "Slice", "Split", "Squeeze",
    "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
_QUANTISED = {
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "DequantizeLinear", "DequantizeBFP",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight(Record):
    """A tensor that training may change.

    Attributes:
        name: The tensor's name, prefixed with the path of its scope where that is not the main graph.
        scope: Path of the scope, "" for the main graph.
        tensor: Name of the initializer, or of the output of the Constant node.
        shape: Its dimensions.
        dtype: float16, bfloat16, float32 or float64.
        roles: What it is used as: weight, bias, scale, shift, statistics.
        same_as: Name of an earlier weight stored in the same bytes of a file of external data, usually "".
    """

    SCHEMA: ClassVar[str] = "jr_onnx.weight/1"
    name: str
    scope: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    roles: tuple[str, ...]
    same_as: str = ""

    @property
    def is_statistic(self) -> bool:
        """Whether it is a mean or a variance of a BatchNormalization, which gradients do not train."""
        return STATISTICS in self.roles

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def find_weights(model: str | Path | onnx.ModelProto) -> tuple[Weight, ...]:
    """Return the weights of a model, in the order in which the graph reads them.

    Args:
        model: A path (external data is not opened) or a ModelProto.

    Raises:
        ModelError: It is not a usable model.
    """
    if isinstance(model, onnx.ModelProto):
        return _find(model)
    source = load(model)
    with readable(str(model)):
        return _find(source.proto)


def has_quantised_weights(model: onnx.ModelProto) -> bool:
    """Tell whether the weights of a model are integers, which training cannot move."""
    return any(node.op_type in _QUANTISED for node in all_nodes(model))


def tensors_by_place(model: onnx.ModelProto) -> dict[tuple[str, str], TensorProto]:
    """Return (scope path, name) -> tensor of every initializer and Constant node."""
    found: dict[tuple[str, str], TensorProto] = {}
    for scope in all_scopes(model):
        if scope.graph is not None:
            found.update({(scope.path, str(tensor.name)): tensor for tensor in scope.graph.initializer})
        for node in scope.nodes:
            tensor = constant_tensor(node)
            if tensor is not None:
                found[scope.path, str(node.output[0])] = tensor
    return found


def constant_tensor(node: onnx.NodeProto) -> TensorProto | None:
    """Return the tensor of a Constant node; None for other nodes and other forms of a constant."""
    if node.op_type != "Constant" or normal_domain(node.domain) or not node.output:
        return None
    return next((item.t for item in node.attribute if item.name == "value" and item.HasField("t")), None)


def _find(model: onnx.ModelProto) -> tuple[Weight, ...]:
    walker = _Walker(model)
    weights: list[Weight] = []
    names: set[str] = set()
    places: dict[tuple[object, ...], str] = {}
    for (path, tensor_name), roles in walker.roles.items():
        tensor = walker.tensors[path, tensor_name]
        if len(set(roles)) > 1 and STATISTICS in roles:
            roles = {role: None for role in roles if role != STATISTICS}
        name = tensor_name if not path else f"{path}/{tensor_name}"
        if name in names:
            raise ModelError(f"two weights of the model are called {name!r}, expected different names")
        names.add(name)
        shape = tuple(int(size) for size in tensor.dims)
        same_as = ""
        if tensor.data_location == TensorProto.EXTERNAL:
            place = external_place(tensor)
            key = (place.location, place.offset, shape, int(tensor.data_type))
            same_as = places.setdefault(key, name)
        same_as = "" if same_as == name else same_as
        weights.append(Weight(name, path, tensor_name, shape, NAMES[tensor.data_type], tuple(roles), same_as))
    return tuple(weights)


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a value: its tensors, whether it is constant, and what comes before it."""

    origins: tuple[tuple[str, str], ...] = ()
    constant: bool = False
    many: bool = False
    behind: bool = False


_UNKNOWN = _Value()


@dataclass
class _Walker:
    """Follows every value from the inputs on, functions as often as they are called.

    Attributes:
        model: The model.
        tensors: (scope path, name) -> tensor.
        roles: (scope path, name) -> the roles of a weight, in the order in which they were found.
    """

    model: onnx.ModelProto
    tensors: dict[tuple[str, str], TensorProto] = field(init=False)
    roles: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = tensors_by_place(self.model)
        tops = top_scopes(self.model)
        expanded_size(tops)  # refuses calls too many to follow
        self._functions = {function_key(top.function): top for top in tops if top.function is not None}
        self._scope(tops[0], {}, 0)

    def _scope(self, scope: Scope, env: dict[str, _Value], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ModelError(f"function calls are nested more than {_MAX_DEPTH} levels deep")
        if scope.graph is not None:
            for tensor in scope.graph.initializer:
                env[str(tensor.name)] = self._leaf(scope.path, str(tensor.name), tensor)
        for position in range(len(scope.nodes)):
            self._node(scope, position, env, depth)

    def _leaf(self, path: str, name: str, tensor: TensorProto) -> _Value:
        trainable = tensor.data_type in FLOAT_NUMBERS
        return _Value(((path, name),) if trainable else (), constant=True, many=math.prod(tensor.dims) > 1)

    def _node(self, scope: Scope, position: int, env: dict[str, _Value], depth: int) -> None:
        node = scope.nodes[position]
        tensor = constant_tensor(node)
        if tensor is not None:
            env[str(node.output[0])] = self._leaf(scope.path, str(node.output[0]), tensor)
            return
        inputs = [env.get(str(name), _UNKNOWN) if name else None for name in node.input]
        if node.op_type == "CastLike" and not normal_domain(node.domain) and inputs and inputs[0] is not None:
            env[str(node.output[0])] = inputs[0]  # of what it is cast like, only the type counts
            return
        function = self._functions.get(function_key(node))
        if function is not None and function.function is not None:
            names = zip(function.function.input, inputs, strict=False)
            inner = {str(name): value for name, value in names if value is not None}
            self._scope(function, inner, depth + 1)
            outside = zip(node.output, function.function.output, strict=False)
            env.update({str(name): inner.get(str(inside), _UNKNOWN) for name, inside in outside if name})
            return
        found = self._operator(node, [value for value in inputs if value is not None], inputs)
        results = [self._branch(body, env, depth) for body in scope.children_of.get(position, [])]
        for number, name in enumerate(str(name) for name in node.output):
            if name and results:
                env[name] = _Value(behind=any(values[number].behind for values in results if number < len(values)))
            elif name:
                env[name] = found

    def _branch(self, body: Scope, env: dict[str, _Value], depth: int) -> list[_Value]:
        """Follow a sub-graph, and return its outputs."""
        inner = dict(env)
        self._scope(body, inner, depth + 1)
        return [inner.get(str(output.name), _UNKNOWN) for output in (body.graph.output if body.graph else ())]

    def _operator(self, node: onnx.NodeProto, given: list[_Value], inputs: list[_Value | None]) -> _Value:
        key = (normal_domain(node.domain), str(node.op_type))
        behind = any(item.behind for item in given)
        if (given or key == ("", "Constant")) and all(item.constant for item in given):
            passes = not key[0] and key[1] in _TRANSPARENT
            origins = tuple(dict.fromkeys(place for item in given for place in item.origins)) if passes else ()
            return _Value(origins, constant=True, many=any(item.many for item in given))
        roles = _ROLES.get(key)
        if roles is not None:
            for at, value in enumerate(inputs):
                if value is not None and value.constant and at in roles:
                    self._note(value, "weight" if roles[at] == "data" else roles[at])
            return _Value(behind=True)
        if key in _PRODUCTS:
            self._note_all(given, "weight")
            return _Value(behind=True)
        if not key[0] and key[1] in _ELEMENTWISE and behind:
            self._note_all((item for item in given if item.many), _ELEMENTWISE[key[1]])
        return _Value(behind=behind)

    def _note_all(self, values: Iterable[_Value], role: str) -> None:
        for value in values:
            if value.constant:
                self._note(value, role)

    def _note(self, value: _Value, role: str) -> None:
        for place in value.origins:
            self.roles.setdefault(place, {})[role] = None
