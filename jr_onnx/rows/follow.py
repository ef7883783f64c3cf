"""Follow the rows through a graph, node by node: main graph, sub-graphs, function bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, numpy_helper

from jr_onnx.opsets import normal_domain
from jr_onnx.rows.contents import CONTENTS
from jr_onnx.rows.node import Node
from jr_onnx.rows.registry import BLOCKED, CLASSICAL, MICROSOFT, RULES, STANDARD, Known
from jr_onnx.rows.rules import __all__ as _families  # importing the rules fills the registry
from jr_onnx.rows.size import Size
from jr_onnx.rows.value import LARGEST_CONTENT, NotProvedError, Unproved, Value, constant, fixed, known
from jr_onnx.semantics import DRAW_OP_TYPE, OP_DOMAIN

if not _families:
    raise ImportError("there are no rules")

_LEAST_BUDGET: Final = 20_000
_TIMES: Final = 3
"""Nodes that are followed, those of function bodies and loops once for each time: so many, or so many times the nodes
that the file holds. Functions that call each other can stand for more nodes than any file holds."""

_DEEPEST: Final = 50
RANDOM_OPERATORS: Final = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
)  # fmt: skip
"""Standard operators that draw random numbers."""
_RANDOM: Final = {*((STANDARD, name) for name in RANDOM_OPERATORS), (OP_DOMAIN, DRAW_OP_TYPE)}
_BUILT_IN: Final = (STANDARD, MICROSOFT, BLOCKED, CLASSICAL)
_DRAWING_ATTRIBUTES: Final = {"kappa_low", "kappa_high"}
_GRAPHS: Final = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_State = Value | Unproved


class TooMuchError(NotProvedError):
    """The model has more nodes, or deeper ones, than are followed."""


@dataclass(slots=True)
class _Scope:
    """The values of one graph or function body, and what its nodes need to know of the world around it."""

    versions: Mapping[str, int]
    attributes: Mapping[str, AttributeProto]
    depth: int
    parent: _Scope | None = None
    values: dict[str, _State] = field(default_factory=dict)

    def find(self, name: str) -> _State | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None


class Walk:
    """Follows the rows through a model.

    Args:
        model: The model; weights that lie in other files are not read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._functions = {(normal_domain(item.domain), item.name, item.overload): item for item in model.functions}
        held = len(model.graph.node) + sum(len(item.node) for item in model.functions)
        self._budget = self._left = max(_LEAST_BUDGET, _TIMES * held)
        self._numbers = count()

    def run(self, inputs: Mapping[str, Value]) -> list[tuple[str, _State]]:
        """Return what is known of every output of the model.

        Args:
            inputs: What is known of the inputs that have no default.

        Raises:
            TooMuchError: The model is too large to be followed.
        """
        scope = _Scope(_versions(self._model.opset_import), {}, 0)
        graph = self._model.graph
        scope.values.update(inputs)
        self._graph(graph, scope)
        return [(output.name, _of_name(scope, output.name)) for output in graph.output]

    def fresh(self) -> Size:
        """Return a size of which only this is known: it does not change with the batch."""
        return Size(1, (f"?{next(self._numbers)}",))

    def _graph(self, graph: onnx.GraphProto, scope: _Scope) -> None:
        for tensor in graph.initializer:
            scope.values.setdefault(tensor.name, _stored(tensor))
        for sparse in graph.sparse_initializer:
            scope.values.setdefault(sparse.values.name, fixed(tuple(Size(size) for size in sparse.dims)))
        self._nodes(graph.node, scope)

    def _nodes(self, nodes: Iterable[onnx.NodeProto], scope: _Scope) -> None:
        for node in ordered(nodes):
            self._left -= 1
            if self._left < 0:
                raise TooMuchError(
                    f"it has more than {self._budget} nodes, those of functions and loops counted once for each time"
                )
            states = self._step(node, scope)
            for name, state in zip(node.output, states, strict=True):
                if name:
                    scope.values[name] = state

    def _step(self, proto: onnx.NodeProto, scope: _Scope) -> list[_State]:
        states = [_of_name(scope, name) if name else None for name in proto.input]
        unproved = next((state for state in states if isinstance(state, Unproved)), None)
        if unproved is not None:
            return [unproved] * len(proto.output)
        inputs = tuple(state for state in states if not isinstance(state, Unproved))
        try:
            answer = self._apply(proto, inputs, scope)
        except TooMuchError:
            raise
        except _InnerError as error:
            return [error.unproved] * len(proto.output)
        except NotProvedError as error:
            return [Unproved(_label(proto), str(error))] * len(proto.output)
        except RecursionError:
            raise TooMuchError("its graphs are nested too deeply") from None
        except Exception:  # noqa: BLE001 - a node of a hostile file can be wrong in any way; it is then not proved
            return [Unproved(_label(proto), "its attributes or inputs do not fit its operator")] * len(proto.output)
        return [_checked(proto, state) for state in answer]

    def _apply(self, proto: onnx.NodeProto, inputs: tuple[Value | None, ...], scope: _Scope) -> Sequence[_State]:
        domain = normal_domain(proto.domain)
        attributes = _attributes(proto, scope)
        if (domain, proto.op_type) in _RANDOM or (domain == OP_DOMAIN and _DRAWING_ATTRIBUTES & set(attributes)):
            raise NotProvedError("it draws random numbers, so that a row's answer is never the same twice")
        function = self._functions.get((domain, proto.op_type, proto.overload))
        if function is not None:
            if domain in _BUILT_IN:
                raise NotProvedError("a function of the model has the name of a built-in operator")
            return self._call(function, inputs, attributes, scope)
        if domain == STANDARD and domain not in scope.versions:
            raise NotProvedError("the version of its operator is not said")
        if domain == STANDARD and proto.op_type == "Constant":
            return [_constant(attributes)]
        node = Node(
            op=proto.op_type,
            version=scope.versions.get(domain, 1),
            inputs=inputs,
            names=tuple(proto.input),
            outputs=len(proto.output),
            attributes=attributes,
            fresh=self.fresh,
            run=lambda graph, values: self._body(graph, values, scope),
        )
        computed = _computed(domain, node)
        return [computed] if computed is not None else self._rule(domain, node)

    def _rule(self, domain: str, node: Node) -> Sequence[_State]:
        known_rule = RULES.get((domain, node.op))
        # What is the same in every run goes in, so what is the same comes out; what an unknown operator does with
        # state of its own is not known.
        constant_only = all(value.axis is None and not value.sized for value in node.given()) and not any(
            attribute.type in _GRAPHS for attribute in node.attributes.values()
        )
        harmless = constant_only and domain in (STANDARD, CLASSICAL) and node.op != "Dropout"
        if known_rule is None:
            if harmless:
                return [fixed() for _ in range(node.outputs)]
            raise NotProvedError("its operator is not among those that are followed")
        _check_sizes(known_rule, node)
        try:
            answer = known_rule.rule(node)
        except NotProvedError:
            if harmless:
                return [fixed() for _ in range(node.outputs)]
            raise
        if isinstance(answer, Value):
            return [answer] * node.outputs
        if len(answer) != node.outputs:
            raise NotProvedError(f"it has {node.outputs} outputs, expected {len(answer)}")
        return answer

    def _call(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        caller: _Scope,
    ) -> list[_State]:
        if caller.depth >= _DEEPEST:
            raise TooMuchError(f"its functions are nested more than {_DEEPEST} deep")
        bound = {item.name: item for item in function.attribute_proto} | dict(attributes)
        scope = _Scope(_versions(function.opset_import), bound, caller.depth + 1)
        for name, value in zip(function.input, inputs, strict=False):
            if value is not None:
                scope.values[name] = value
        self._nodes(function.node, scope)
        return [_of_name(scope, name) for name in function.output]

    def _body(self, graph: onnx.GraphProto, values: Sequence[Value], scope: _Scope) -> list[Value]:
        if scope.depth >= _DEEPEST:
            raise TooMuchError(f"its graphs are nested more than {_DEEPEST} deep")
        inner = _Scope(scope.versions, scope.attributes, scope.depth + 1, scope)
        inner.values.update(zip((item.name for item in graph.input), values, strict=True))
        self._graph(graph, inner)
        results = []
        for output in graph.output:
            state = _of_name(inner, output.name)
            if isinstance(state, Unproved):
                raise _InnerError(state)
            results.append(state)
        return results


def ordered(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes so that each comes after those that it reads from, as ONNX Runtime takes them too."""
    listed = list(nodes)
    makers = {name: index for index, node in enumerate(listed) for name in node.output if name}
    waits = [sorted({makers[name] for name in _read(node) if name in makers}) for node in listed]
    if all(not before or before[-1] < index for index, before in enumerate(waits)):
        return listed
    done: set[int] = set()
    result = []
    for root in range(len(listed)):
        stack = [(root, False)]
        open_nodes: set[int] = set()
        while stack:
            index, is_ready = stack.pop()
            if is_ready:
                if index not in done:
                    done.add(index)
                    result.append(listed[index])
            elif index not in done and index not in open_nodes:
                open_nodes.add(index)  # in a circle it is simply not ready: its reader finds nothing there
                stack.append((index, True))
                stack += [(before, False) for before in waits[index] if before not in done]
    return result


def _read(node: onnx.NodeProto) -> Iterable[str]:
    """Yield the names that a node reads, those of its sub-graphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read(inner)
            for output in graph.output:
                yield output.name


class _InnerError(NotProvedError):
    """The proof ended inside a sub-graph."""

    def __init__(self, unproved: Unproved) -> None:
        super().__init__(unproved.reason)
        self.unproved = unproved


def _of_name(scope: _Scope, name: str) -> _State:
    state = scope.find(name)
    return Unproved(name, "nothing computes this value") if state is None else state


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for item in imports:
        domain = normal_domain(item.domain)
        if versions.setdefault(domain, item.version) != item.version:
            raise NotProvedError(f"it imports the operators of {domain or 'ai.onnx'!r} in two versions")
    return versions


def _label(proto: onnx.NodeProto) -> str:
    name = proto.name or next(iter(proto.output), "")
    return f"{name!r} ({proto.op_type})"


def _attributes(proto: onnx.NodeProto, scope: _Scope) -> dict[str, AttributeProto]:
    """Return a node's attributes, those that a function's caller sets filled in."""
    result = {}
    for attribute in proto.attribute:
        found = scope.attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if found is not None:
            result[attribute.name] = found
    return result


def _check_sizes(known_rule: Known, node: Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value.sized and (value.content is None or index not in known_rule.sizes):
            raise NotProvedError(f"its input {node.names[index]!r} depends on the number of rows")


def _computed(domain: str, node: Node) -> Value | None:
    """Return the elements of a result that is computed from known ones."""
    given = node.given()
    if domain != STANDARD or not given or any(value.content is None for value in given):
        return None
    function = CONTENTS.get(node.op)
    if function is None:
        return None
    try:
        content = function(node)
    except (ArithmeticError, IndexError, TypeError, ValueError):
        return None
    return None if content is None or content.size > LARGEST_CONTENT else known(np.asarray(content, dtype=object))


def _checked(proto: onnx.NodeProto, state: _State) -> _State:
    """Hold a rule's answer to what a value promises: no size but that of the batch's axis changes with the batch."""
    if isinstance(state, Unproved) or state.dims is None:
        return state
    if any(size.has_batch for axis, size in enumerate(state.dims) if axis != state.axis):
        return Unproved(_label(proto), "a size that is not the batch's depends on the number of rows")
    return state


def _stored(tensor: onnx.TensorProto) -> Value:
    """Return the value of an initializer; the elements of small ones, where they are in the file itself."""
    dims = tuple(Size(size) for size in tensor.dims)
    if int(np.prod(tensor.dims, dtype=object)) > LARGEST_CONTENT or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return Value(dims=dims)
    try:
        return constant(numpy_helper.to_array(tensor))
    except (TypeError, ValueError, KeyError):
        return Value(dims=dims)


def _constant(attributes: Mapping[str, AttributeProto]) -> Value:
    """Return the value of a Constant node."""
    name, attribute = next(iter(attributes.items()))
    value = onnx.helper.get_attribute_value(attribute)
    if name == "value":
        return _stored(value)
    if name == "sparse_value":
        return fixed(tuple(Size(size) for size in value.dims))
    if name in ("value_string", "value_strings"):
        return constant(np.asarray(value, dtype=object))
    return constant(np.asarray(value, dtype=np.int64 if name.startswith("value_int") else np.float32))
