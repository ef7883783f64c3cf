"""Prove that a value is constant, and read it: initializers, Constant nodes, and what nodes make of these.

    Identity, Cast, CastLike, ConstantOfShape, Expand, Reshape, arithmetic, ...   folded by ONNX's reference evaluator
    the inputs and attributes of a function                                       where all calls agree
    external data and large tensors                                               read where they are small or all zero

An initializer that is also a graph input can be overridden by a caller from IR 4 on, so it proves nothing there; and
one that is an input of the body of a Loop or Scan is overridden at every IR version. A value may be known without its
shape: ConstantOfShape(Shape(x)) is zero everywhere, however large x is (`Uniform`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from jr_onnx.element_types import FLOAT_NUMBERS, Array
from jr_onnx.modelfile import copied
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.folding import FOLDED, fold
from jr_onnx.rewriter.scopes import Scope, function_key, top_scopes, walk
from jr_onnx.rewriter.stored import NotStored, is_zero, read_small

_MAX_DEPTH = 40
# Nodes that move the elements of their first input and change none.
_MOVING = {"Identity", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Expand", "Tile", "Slice"}


@dataclass(frozen=True, slots=True)
class NotConstant:
    """Why a value could not be proved constant.

    Attributes:
        reason: In words.
        apparent: What it is unless a caller says otherwise: the default of an overridable initializer, or what one
            call of a function gives.
        unread: Whether it is constant, but its data are not available.
    """

    reason: str
    apparent: Array | None = None
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Uniform:
    """A value all of whose elements are one number.

    Attributes:
        value: The number.
        shape: Its shape, None where it is not constant.
        like: The scope that defines, and the name of, a value of which it has the shape.
    """

    value: float
    shape: tuple[int, ...] | None = None
    like: tuple[Scope, str] | None = None


class ConstantFinder:
    """Look up constants from any scope; producers and initializers are indexed once per scope.

    Args:
        model: The model.
        folder: The folder that its external data is relative to; None leaves external data unread.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path | None = None) -> None:
        self._model = model
        self.folder = folder
        self._dequantised: dict[Scope, dict[bytes, str]] = {}
        self._index: dict[Scope, tuple[dict[str, onnx.NodeProto], dict[str, onnx.TensorProto], set[str]]] = {}
        self._values: dict[tuple[Scope, str], Array | NotConstant] = {}

    def value(self, scope: Scope, name: str, depth: int = 0) -> Array | NotConstant:
        """Return the array a name stands for, or why it is not known to be constant."""
        found = self.definition(scope, name)
        if isinstance(found, NotConstant):
            return found
        holder, item = found
        key = holder, name
        if key not in self._values:
            if depth > _MAX_DEPTH:
                return NotConstant(f"{name!r} is computed by a long chain of nodes")
            self._values[key] = NotConstant(f"{name!r} is computed from itself")  # should the graph hold a circle
            self._values[key] = self._evaluate(holder, item, name, depth + 1)
        return self._values[key]

    def uniform(self, scope: Scope, name: str, depth: int = 0) -> Uniform | NotConstant:
        """Return the number that all elements of a value are, its shape as far as it is known, or why not."""
        found = self.definition(scope, name)
        if isinstance(found, NotConstant):
            return found
        holder, item = found
        if depth > _MAX_DEPTH:
            return NotConstant(f"{name!r} is computed by a long chain of nodes")
        tensor = item if isinstance(item, onnx.TensorProto) else _tensor_of(item)
        if tensor is not None and is_zero(tensor, self.folder):
            return Uniform(0.0, tuple(tensor.dims))
        value = self.value(holder, name, depth)
        if not isinstance(value, NotConstant):
            return _uniform_of(value, name)
        if isinstance(item, onnx.NodeProto) and not normal_domain(item.domain):
            return self._uniform_node(holder, item, value, depth + 1)
        return value

    def definition(self, scope: Scope, name: str) -> tuple[Scope, onnx.NodeProto | TensorProto | None] | NotConstant:
        """Return the scope that defines a name, and the node or tensor that yields it; None is a function's input."""
        current: Scope | None = scope
        while current is not None:
            producers, initializers, inputs = self._of(current)
            if name in initializers:
                if name in inputs and (self._model.ir_version >= 4 or not current.is_main):
                    stored = read_small(initializers[name], self.folder)
                    apparent = None if isinstance(stored, NotStored) else stored
                    return NotConstant(f"{name!r} is an initializer that a caller may override", apparent)
                return current, initializers[name]
            if name in inputs:
                if current.function is not None and current.graph is None:
                    return current, None
                return NotConstant(f"{name!r} is a graph input")
            if name in producers:
                return current, producers[name]
            current = current.parent
        return NotConstant(f"{name!r} is not defined")

    def attribute(self, scope: Scope, node: onnx.NodeProto, name: str) -> onnx.AttributeProto | NotConstant | None:
        """Return a node's attribute; one that refers to an attribute of its function is looked up at the calls."""
        found = next((item for item in node.attribute if item.name == name), None)
        if found is None or not found.ref_attr_name:
            return found
        return self._referred(scope, str(found.ref_attr_name), 0)

    def _referred(self, scope: Scope, name: str, depth: int) -> onnx.AttributeProto | NotConstant | None:
        root = scope.root()
        function = root.function
        problem = NotConstant(f"it is the function's attribute {name!r}")
        if function is None or depth > _MAX_DEPTH:
            return problem
        default = next((item for item in function.attribute_proto if item.name == name), None)
        given: list[onnx.AttributeProto | None] = []
        for caller, call in self._calls.get(function_key(function), ()):
            own = next((item for item in call.attribute if item.name == name), None)
            if own is not None and own.ref_attr_name:
                further = self._referred(caller, str(own.ref_attr_name), depth + 1)
                if isinstance(further, NotConstant):
                    return further
                own = further
            given.append(own if own is not None else default)
        contents = {_content(item) for item in given}
        if len(contents) != 1:
            return NotConstant(f"{problem.reason}, which its {len(given)} calls set differently") if given else problem
        return given[0]

    def _evaluate(
        self, scope: Scope, item: onnx.NodeProto | TensorProto | None, name: str, depth: int
    ) -> Array | NotConstant:
        if item is None:
            return self._function_input(scope, name, depth)
        if isinstance(item, TensorProto):
            return _stored(item, name, self.folder)
        domain = normal_domain(item.domain)
        if (called := self._bodies.get(function_key(item))) is not None and called.function is not None:
            position = list(item.output).index(name)
            if position < len(called.function.output):
                return self.value(called, called.function.output[position], depth)
        if domain:
            return NotConstant(f"{name!r} is computed by {item.domain}::{item.op_type}")
        if item.op_type == "Constant":
            return self._constant_node(scope, item, name)
        if item.input and item.op_type in ("Identity", "CastLike"):
            # What CastLike converts to is not looked at: a bound is rounded to the site's own type anyway.
            return self.value(scope, item.input[0], depth)
        if item.op_type not in FOLDED:
            return NotConstant(f"{name!r} is computed by {item.op_type}")
        arguments = []
        for source in item.input:
            argument = self.value(scope, source, depth) if source else None
            if isinstance(argument, NotConstant):
                return NotConstant(f"{name!r} is computed by {item.op_type}", None, argument.unread)
            arguments.append(argument)
        folded = fold(item, scope.opset, arguments)
        return folded if folded is not None else NotConstant(f"{name!r} is computed by {item.op_type}")

    def _function_input(self, scope: Scope, name: str, depth: int) -> Array | NotConstant:
        """Return what all calls of a function give for one of its inputs."""
        function = scope.function
        calls = self._calls.get(function_key(function), ()) if function is not None else ()
        if function is None or not calls:
            return NotConstant(f"{name!r} is an input of a function that nothing calls")
        position = list(function.input).index(name)
        given = [(caller, call.input[position] if position < len(call.input) else "") for caller, call in calls]
        found = [self.value(caller, source, depth) if source else NotConstant("") for caller, source in given]
        arrays = [item for item in found if not isinstance(item, NotConstant)]
        if len(arrays) == len(found) and all(_equal(arrays[0], item) for item in arrays[1:]):
            return arrays[0]
        arrays += [item.apparent for item in found if isinstance(item, NotConstant) and item.apparent is not None]
        # A zero in one call is what a detector has to hear of, whatever the others give.
        apparent = min(arrays, key=lambda item: bool(np.any(item)), default=None)
        return NotConstant(f"{name!r} is a function input that is not the same constant in every call", apparent)

    def _uniform_node(self, scope: Scope, node: onnx.NodeProto, why: NotConstant, depth: int) -> Uniform | NotConstant:
        """Return the number of a node whose value is not constant as a whole: its shape comes with the data."""
        if node.op_type == "ConstantOfShape" and node.input:
            tensor = next((item.t for item in node.attribute if item.name == "value"), None)
            if tensor is None:
                return self._shaped(scope, 0.0, node.input[0], depth)
            number = _stored(tensor, node.output[0], self.folder)
            if isinstance(number, NotConstant) or number.size != 1:
                return why
            return self._shaped(scope, float(number.reshape(()).astype(np.float64)), node.input[0], depth)
        if node.op_type in ("Mul", "Sub") and len(node.input) == 2:
            return self._zeros_like(scope, node, depth) or why
        casts = node.op_type == "Cast" and any(item.name == "to" and item.i in FLOAT_NUMBERS for item in node.attribute)
        if not (casts or node.op_type in _MOVING) or not node.input:
            return why
        inner = self.uniform(scope, node.input[0], depth)
        if isinstance(inner, NotConstant):
            return why if not (inner.unread or inner.apparent is not None) else inner
        if node.op_type in ("Identity", "Cast", "CastLike"):
            return inner
        if node.op_type == "Expand" and len(node.input) > 1 and inner.shape == ():
            return self._shaped(scope, inner.value, node.input[1], depth)
        return Uniform(inner.value)

    def _zeros_like(self, scope: Scope, node: onnx.NodeProto, depth: int) -> Uniform | None:
        """Return the zero that y * 0 and y - y are, for finite y, as some write zeros of y's shape."""
        first, second = str(node.input[0]), str(node.input[1])
        if node.op_type == "Sub":
            same = self.origin(scope, first) == self.origin(scope, second)
            return Uniform(0.0, None, self.origin(scope, first)) if same else None
        for value, factor in ((first, second), (second, first)):
            found = self.uniform(scope, factor, depth)
            if isinstance(found, Uniform) and found.value == 0:
                return Uniform(0.0, None, self.origin(scope, value) if found.shape == () else None)
        return None

    def _shaped(self, scope: Scope, value: float, shape: str, depth: int) -> Uniform:
        """Return a uniform value whose shape another value holds: a constant, or Shape(x)."""
        dims = self.value(scope, shape, depth)
        if not isinstance(dims, NotConstant):
            return Uniform(value, tuple(int(dim) for dim in np.ravel(dims)))
        for _ in range(_MAX_DEPTH):
            found = self.producer(scope, shape)
            if found is None or normal_domain(found[1].domain) or not found[1].input:
                break
            scope, node = found
            if node.op_type == "Shape" and not node.attribute:
                return Uniform(value, None, self.origin(scope, node.input[0]))
            if node.op_type != "Cast":
                break
            shape = node.input[0]
        return Uniform(value)

    def origin(self, scope: Scope, name: str) -> tuple[Scope, str]:
        """Return the scope and name under which a value was defined, Identity looked through.

        A quantiser may write a DequantizeLinear for each reader of a value; they are one.
        """
        for _ in range(_MAX_DEPTH):
            holder = self._holder(scope, name)
            node = self._of(holder)[0].get(name)
            if node is not None and node.op_type == "DequantizeLinear":
                return holder, self._twins(holder).get(_computation(node), name)
            if node is None or node.op_type != "Identity" or normal_domain(node.domain) or not node.input:
                return holder, name
            scope, name = holder, node.input[0]
        return scope, name

    def unquantised(self, scope: Scope, name: str) -> tuple[Scope, str]:
        """Return the origin of a value, QuantizeLinear and DequantizeLinear looked through as well."""
        for _ in range(_MAX_DEPTH):
            scope, name = self.origin(scope, name)
            node = self._of(scope)[0].get(name)
            if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear") or not node.input:
                break
            name = node.input[0]
        return scope, name

    def _twins(self, scope: Scope) -> dict[bytes, str]:
        if scope not in self._dequantised:
            found: dict[bytes, str] = {}
            for node in scope.nodes:
                if node.op_type == "DequantizeLinear" and node.output:
                    found.setdefault(_computation(node), str(node.output[0]))
            self._dequantised[scope] = found
        return self._dequantised[scope]

    def producer(self, scope: Scope, name: str) -> tuple[Scope, onnx.NodeProto] | None:
        """Return the node that computes a value, Identity looked through, and its scope; None for other values."""
        here = self._of(scope)[0].get(name)
        if here is not None and here.op_type != "Identity":
            return scope, here
        holder, name = self.origin(scope, name)
        node = self._of(holder)[0].get(name)
        return None if node is None else (holder, node)

    def _holder(self, scope: Scope, name: str) -> Scope:
        current: Scope | None = scope
        while current is not None:
            producers, initializers, inputs = self._of(current)
            if name in producers or name in initializers or name in inputs:
                return current
            current = current.parent
        return scope

    def _constant_node(self, scope: Scope, node: onnx.NodeProto, name: str) -> Array | NotConstant:
        for item in node.attribute:
            attribute = self.attribute(scope, node, item.name)
            if isinstance(attribute, NotConstant):
                return NotConstant(f"{name!r}: {attribute.reason}")
            if attribute is None:
                continue
            if item.name == "value" and attribute.HasField("t"):
                return _stored(attribute.t, name, self.folder)
            if item.name == "value_float":
                return np.asarray(attribute.f, dtype=np.float32)
            if item.name == "value_int":
                return np.asarray(attribute.i, dtype=np.int64)
            if item.name == "value_floats":
                return np.asarray(list(attribute.floats), dtype=np.float32)
            if item.name == "value_ints":
                return np.asarray(list(attribute.ints), dtype=np.int64)
        return NotConstant(f"{name!r} is a Constant without a numeric value")

    @cached_property
    def _tops(self) -> list[Scope]:
        return top_scopes(self._model)

    @cached_property
    def _bodies(self) -> dict[str, Scope]:
        return {function_key(top.function): top for top in self._tops if top.function is not None}

    @cached_property
    def _calls(self) -> dict[str, list[tuple[Scope, onnx.NodeProto]]]:
        """Where every function is called."""
        found: dict[str, list[tuple[Scope, onnx.NodeProto]]] = {}
        for scope in (scope for top in self._tops for scope in walk(top)):
            for node in scope.nodes:
                key = function_key(node)
                if key in self._bodies:
                    found.setdefault(key, []).append((scope, node))
        return found

    def _of(self, scope: Scope) -> tuple[dict[str, onnx.NodeProto], dict[str, TensorProto], set[str]]:
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


def _computation(node: onnx.NodeProto) -> bytes:
    """Return what a node computes from what, whatever it and its result are called."""
    copy = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, attribute=node.attribute)
    return bytes(copy.SerializeToString(deterministic=True))


def _stored(tensor: TensorProto, name: str, folder: Path | None) -> Array | NotConstant:
    found = read_small(tensor, folder)
    return NotConstant(f"{name!r} {found.reason}", None, found.unread) if isinstance(found, NotStored) else found


def _uniform_of(value: Array, name: str) -> Uniform | NotConstant:
    if value.dtype.kind in "OUS" or value.size == 0:
        return NotConstant(f"{name!r} is not a number")
    numbers = np.ravel(value).astype(np.float64)
    if not np.all(numbers == numbers[0]):
        return NotConstant(f"the elements of {name!r} differ")
    return Uniform(float(numbers[0]), value.shape)


def _tensor_of(node: onnx.NodeProto | None) -> TensorProto | None:
    if node is None or node.op_type != "Constant" or normal_domain(node.domain):
        return None
    return next((item.t for item in node.attribute if item.name == "value" and item.HasField("t")), None)


def _equal(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))


def _content(attribute: onnx.AttributeProto | None) -> bytes | None:
    if attribute is None:
        return None
    copy = copied(attribute)
    copy.name = ""
    return bytes(copy.SerializeToString(deterministic=True))
