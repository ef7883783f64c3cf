"""The element type of every value, by unification over operator schemas; no shapes, no weights, no execution.

Values that an operator's schema binds to one type variable have one type; declared types (inputs, outputs, value
infos, initializers), `Cast` and constants give the facts. A function is seen once per call, because its calls may
differ in type. What stays open is None: the caller must refuse, not guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import onnx
from onnx import AttributeProto, TensorProto

from jr_onnx.element_types import TENSORS
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.expansion import MOST_ADDED, expanded_size
from jr_onnx.rewriter.scopes import Scope, function_key

# Operators without a schema in onnx whose first output has the type of their first input.
_FLOAT_CONTRIB = {
    "FusedConv", "FusedGemm", "Conv", "FusedMatMul", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "MaxPool",
    "SkipLayerNormalization", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReorderInput", "ReorderOutput",
    "NhwcFusedConv", "NhwcConv", "GroupNorm", "LayerNormalization",
}  # fmt: skip

# Operators whose attributes tell the type of their output.
_TELLING_WITH_DEFAULT = {"RandomNormal", "RandomUniform", "HannWindow", "HammingWindow", "BlackmanWindow"}
_TELLING = {
    "Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", *_TELLING_WITH_DEFAULT,
}  # fmt: skip

_SCAN_WITHOUT_LENGTHS = 9  # Scan of opset 8 has the sequence lengths as its first input

Key = tuple[int, str]


class _Table(dict[str, Key]):
    """The names that one visit of a scope defines or reads, and behind them those of the scope around it."""

    def __init__(self, outer: _Table | None) -> None:
        super().__init__()
        self._outer = outer

    def find(self, name: str) -> Key | None:
        """Return what a name stands for, here or further out."""
        table: _Table | None = self
        while table is not None:
            if name in table:
                return table[name]
            table = table._outer
        return None

    def find_or_add(self, name: str, number: int) -> Key:
        """Return what a name stands for, a value of this visit where nothing defines it."""
        return self.find(name) or self.setdefault(name, (number, name))


class ElementTypes:
    """Element types of a model's values; ask with `of(scope, name)`.

    Args:
        tops: The scopes of the main graph and of the function bodies, as `scopes.top_scopes` gives them.
        most_added: How many nodes the calls of functions may expand to on top of those in the file.

    Raises:
        ModelError: A function calls itself, or the calls expand to too many nodes.
    """

    def __init__(self, tops: Sequence[Scope], most_added: int = MOST_ADDED) -> None:
        self._parent: dict[Key, Key] = {}
        self._type: dict[Key, int] = {}
        self._instances: dict[Scope, list[int]] = {}  # one for the main graph and its sub-graphs, one per call below
        self._tables: dict[int, _Table] = {}
        self._functions = {function_key(scope.function): scope for scope in tops if scope.function is not None}
        self._count = 0
        expanded_size(tops, most_added)
        self._visit(tops[0], None)

    def of(self, scope: Scope, name: str) -> set[int]:
        """Return the element types a value takes: one as a rule, several in a function called with several types.

        Empty where no call reaches the scope; 0 stands for a type that could not be determined.
        """
        found = set()
        for instance in self._instances.get(scope, ()):
            key = self._tables[instance].find(name)
            found.add(self._type.get(self._find(key), 0) if key is not None else 0)
        return found

    def _visit(self, scope: Scope, outer: _Table | None) -> _Table:
        self._count += 1
        number = self._count
        self._instances.setdefault(scope, []).append(number)
        table = _Table(outer)
        self._tables[number] = table
        self._declare(scope, table, number)
        for position, node in enumerate(scope.nodes):
            arguments = [table.find_or_add(name, number) if name else None for name in node.input]
            results = [table[name] if name else None for name in node.output]
            self._node(scope, node, arguments, results)
            bodies = scope.children_of.get(position)
            if bodies:
                tables = [self._visit(body, table) for body in bodies]
                self._control_flow(node, arguments, results, bodies, tables)
            called = self._functions.get(function_key(node)) if self._functions else None
            if called is not None:
                self._call(called, arguments, results)
        return table

    def _declare(self, scope: Scope, table: _Table, number: int) -> None:
        """Enter the names this scope defines, shadowing outer ones, with their declared types."""
        graph = scope.graph
        if graph is not None:
            for value in (*graph.input,):
                table[value.name] = (number, value.name)
            for tensor in graph.initializer:
                table[tensor.name] = (number, tensor.name)
                self._assign(table[tensor.name], tensor.data_type)
            for sparse in graph.sparse_initializer:
                table[sparse.values.name] = (number, sparse.values.name)
                self._assign(table[sparse.values.name], sparse.values.data_type)
        elif scope.function is not None:
            for name in scope.function.input:
                table[name] = (number, name)
        table.update((name, (number, name)) for node in scope.nodes for name in node.output if name)
        declared = (*graph.input, *graph.output, *graph.value_info) if graph is not None else ()
        for value in declared:
            key = table.find(value.name)
            if key is not None and value.type.HasField("tensor_type"):
                self._assign(key, value.type.tensor_type.elem_type)

    def _node(
        self, scope: Scope, node: onnx.NodeProto, arguments: Sequence[Key | None], results: Sequence[Key | None]
    ) -> None:
        domain = normal_domain(node.domain)
        keys = (*arguments, *results)
        ties = _ties(node.op_type, scope.opsets.get(domain, 0), domain, len(arguments), len(results))
        if ties is None:
            if domain.startswith("com.microsoft") and node.op_type in _FLOAT_CONTRIB and arguments and results:
                self._unite(arguments[0], results[0])
            return
        by_variable: dict[str, Key] = {}
        for position, type_name in ties:
            key = keys[position]
            if key is None:
                continue
            if type_name in TENSORS:
                self._assign(key, TENSORS[type_name].number)
            elif type_name in by_variable:
                self._unite(by_variable[type_name], key)
            else:
                by_variable[type_name] = key
        declared = _type_from_attribute(node)
        if declared and results and results[0] is not None:
            self._assign(results[0], declared)

    def _control_flow(
        self,
        node: onnx.NodeProto,
        arguments: Sequence[Key | None],
        results: Sequence[Key | None],
        bodies: Sequence[Scope],
        tables: Sequence[_Table],
    ) -> None:
        """Tie the values of an If, Loop or Scan to those of its bodies."""
        for body, table in zip(bodies, tables, strict=True):
            graph = body.graph
            if graph is None:
                continue
            inner_in = [table.find(value.name) for value in graph.input]
            inner_out = [table.find(value.name) for value in graph.output]
            if node.op_type == "If":
                pairs = list(zip(inner_out, results, strict=False))
            elif (
                node.op_type == "Loop"
            ):  # body: (iteration, condition, carried...) -> (condition, carried..., scanned...)
                pairs = [
                    *zip(inner_in[2:], arguments[2:], strict=False),
                    *zip(inner_out[1:], results, strict=False),
                ]
            elif node.op_type == "Scan":
                given = arguments[1:] if body.opset < _SCAN_WITHOUT_LENGTHS else arguments
                pairs = [*zip(inner_in, given, strict=False), *zip(inner_out, results, strict=False)]
            else:
                pairs = []
            for one, other in pairs:
                self._unite(one, other)

    def _call(self, called: Scope, arguments: Sequence[Key | None], results: Sequence[Key | None]) -> None:
        function = called.function
        if function is None:
            return
        table = self._visit(called, None)
        for name, key in zip(function.input, arguments, strict=False):
            self._unite(table.find(name), key)
        for name, key in zip(function.output, results, strict=False):
            self._unite(table.find(name), key)

    def _find(self, key: Key) -> Key:
        root = self._parent.get(key)
        if root is None:
            return key
        while (further := self._parent.get(root, root)) != root:
            root = further
        while self._parent.get(key, key) != root:
            self._parent[key], key = root, self._parent.get(key, key)
        return root

    def _assign(self, key: Key, element_type: int) -> None:
        if element_type:
            self._type.setdefault(self._find(key), element_type)

    def _unite(self, one: Key | None, other: Key | None) -> None:
        if one is None or other is None:
            return
        first, second = self._find(one), self._find(other)
        if first == second:
            return
        known = self._type.get(first) or self._type.get(second)
        self._parent[second] = first
        if known:
            self._type[first] = known


_Formal = tuple[str, bool, bool]


@lru_cache(maxsize=4096)
def _signature(op_type: str, version: int, domain: str) -> tuple[list[_Formal], list[_Formal]] | None:
    if version <= 0:
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return (
        [(item.type_str, item.option == variadic, item.is_homogeneous) for item in schema.inputs],
        [(item.type_str, item.option == variadic, item.is_homogeneous) for item in schema.outputs],
    )


@lru_cache(maxsize=4096)
def _ties(op_type: str, version: int, domain: str, inputs: int, outputs: int) -> list[tuple[int, str]] | None:
    """Return which inputs and outputs, counted together, the schema gives which type or type variable."""
    signature = _signature(op_type, version, domain)
    if signature is None:
        return None
    found = []
    for formals, count, first in zip(signature, (inputs, outputs), (0, inputs), strict=True):
        for index in range(count if formals else 0):
            type_name, variadic, homogeneous = formals[min(index, len(formals) - 1)]
            if homogeneous if variadic else index < len(formals):
                found.append((first + index, type_name))
    return found


def _type_from_attribute(node: onnx.NodeProto) -> int:
    """Return the output type that an attribute names, 0 where none does."""
    if node.op_type not in _TELLING:
        return 0
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Cast":
        return int(attributes["to"].i) if "to" in attributes else 0
    if node.op_type in ("Constant", "ConstantOfShape"):
        return _constant_type(node, attributes)
    if node.op_type in _TELLING_WITH_DEFAULT:
        name = "dtype" if node.op_type.startswith("Random") else "output_datatype"
        return int(attributes[name].i) if name in attributes else TensorProto.FLOAT
    return int(attributes["dtype"].i) if "dtype" in attributes else 0


def _constant_type(node: onnx.NodeProto, attributes: dict[str, AttributeProto]) -> int:
    if "value" in attributes and attributes["value"].HasField("t"):
        return int(attributes["value"].t.data_type)
    if "value_float" in attributes or "value_floats" in attributes:
        return int(TensorProto.FLOAT)
    if "value_int" in attributes or "value_ints" in attributes:
        return int(TensorProto.INT64)
    return int(TensorProto.FLOAT) if node.op_type == "ConstantOfShape" and "value" not in attributes else 0
