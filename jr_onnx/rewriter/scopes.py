"""Walk every place of a model where nodes live: the main graph, sub-graphs of If, Loop and Scan, function bodies.

A scope's path is readable and stable: "" is the main graph, "If_3.then_branch" a branch of the node `If_3`,
"fn:pkg::gelu" the body of the function `gelu` of domain `pkg`. Paths join with "/".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, field
from typing import TypeVar

import onnx

from jr_onnx.opsets import main_opsets, normal_domain, opset_table

T = TypeVar("T")


@dataclass(eq=False)
class Scope:
    """One list of nodes and the names they can see.

    Attributes:
        path: Readable path, "" for the main graph.
        nodes: The repeated field itself, so that edits reach the model.
        graph: The GraphProto, or None for a function body.
        function: The FunctionProto this scope is the body of or lies in, or None.
        parent: The scope whose names are visible here; None for the main graph and for function bodies.
        opsets: Domain -> version; "" is the standard domain.
    """

    path: str
    nodes: MutableSequence[onnx.NodeProto]
    graph: onnx.GraphProto | None
    function: onnx.FunctionProto | None
    parent: Scope | None
    opsets: dict[str, int]
    children_of: dict[int, list[Scope]] = field(default_factory=dict)

    @property
    def children(self) -> list[Scope]:
        """The scopes of the sub-graphs of this scope's nodes, in order; `children_of` has them by node index."""
        return [child for group in self.children_of.values() for child in group]

    @property
    def is_main(self) -> bool:
        """Whether this is the model's main graph."""
        return self.parent is None and self.function is None

    @property
    def opset(self) -> int:
        """Version of the standard domain; 0 where it is not imported."""
        return self.opsets.get("", 0)

    def root(self) -> Scope:
        """Return the main graph or the function body this scope lies in."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def defined_names(self) -> set[str]:
        """Return the names of all values that this scope itself defines."""
        names = {name for node in self.nodes for name in node.output if name}
        if self.graph is not None:
            names.update(value.name for value in self.graph.input)
            names.update(tensor.name for tensor in self.graph.initializer)
            names.update(sparse.values.name for sparse in self.graph.sparse_initializer)
        elif self.function is not None:
            names.update(self.function.input)
        return names

    @property
    def results(self) -> set[str]:
        """The names of the values that this scope yields to the outside."""
        if self.graph is not None:
            return {value.name for value in self.graph.output}
        return set(self.function.output) if self.function is not None else set()

    def node_label(self, node: onnx.NodeProto) -> str:
        """Return the name by which people know a node: its name, else its first output."""
        if name := node.name:
            return str(name)
        return next((str(name) for name in node.output if name), str(node.op_type))


def function_key(function: onnx.FunctionProto | onnx.NodeProto) -> str:
    r"""Return "domain::name" or "domain::name::overload" of a function, or of the function a node would call.

    A colon inside one of the parts stands as "\:" in it, so that two functions never share a key.
    """
    name = function.op_type if isinstance(function, onnx.NodeProto) else function.name
    parts = [normal_domain(function.domain), name, *([function.overload] if function.overload else ())]
    return "::".join(part.replace("\\", r"\\").replace(":", r"\:") if ":" in part else part for part in parts)


def main_scope(model: onnx.ModelProto, taken: dict[str, int] | None = None) -> Scope:
    """Return the scope of the main graph, its sub-graphs below it; their paths are added to `taken`."""
    return _graph_scope("", model.graph, None, None, main_opsets(model), {} if taken is None else taken)


def function_scopes(model: onnx.ModelProto, taken: dict[str, int] | None = None) -> list[Scope]:
    """Return the scopes of the function bodies, their sub-graphs below them; their paths are added to `taken`."""
    taken = {} if taken is None else taken
    scopes = []
    for function in model.functions:
        path = unique(f"fn:{function_key(function)}", taken)
        scope = Scope(path, function.node, None, function, None, opset_table(function.opset_import))
        add_children(scope, taken)
        scopes.append(scope)
    return scopes


def walk(scope: Scope) -> Iterator[Scope]:
    """Yield a scope and all below it, outer ones first."""
    yield scope
    for child in scope.children:
        yield from walk(child)


def top_scopes(model: onnx.ModelProto) -> list[Scope]:
    """Return the scope of the main graph and those of the function bodies."""
    taken: dict[str, int] = {}
    return [main_scope(model, taken), *function_scopes(model, taken)]


def all_scopes(model: onnx.ModelProto) -> list[Scope]:
    """Return every scope of a model, outer ones first."""
    return [scope for top in top_scopes(model) for scope in walk(top)]


def scopes_by_path(model: onnx.ModelProto) -> dict[str, Scope]:
    """Return every scope of a model by its path."""
    return {scope.path: scope for scope in all_scopes(model)}


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a model."""
    for scope in all_scopes(model):
        yield from scope.nodes


def substitute(
    marks: Mapping[Scope, Mapping[int, T]], write: Callable[[onnx.NodeProto, T], Iterable[onnx.NodeProto]]
) -> None:
    """Replace nodes, inner scopes first: replacing an outer node list copies the sub-graphs inside it.

    Args:
        marks: For each scope, what is known about the nodes to replace, by their positions.
        write: Takes a node and what is known about it; returns the nodes that take its place, which are copied.
    """
    roots = dict.fromkeys(scope.root() for scope in marks)
    for scope in reversed([scope for root in roots for scope in walk(root)]):
        here = marks.get(scope)
        if not here:
            continue
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(scope.nodes):
            nodes.extend(write(node, here[index]) if index in here else (node,))
        replace_nodes(scope, nodes)


def replace_nodes(scope: Scope, nodes: Iterable[onnx.NodeProto]) -> None:
    """Put other nodes into a scope; the protos are copied."""
    kept = list(nodes)
    del scope.nodes[:]
    scope.nodes.extend(kept)


def _graph_scope(
    path: str,
    graph: onnx.GraphProto,
    function: onnx.FunctionProto | None,
    parent: Scope | None,
    opsets: dict[str, int],
    taken: dict[str, int],
) -> Scope:
    scope = Scope(path, graph.node, graph, function, parent, opsets)
    add_children(scope, taken)
    return scope


def add_children(scope: Scope, taken: dict[str, int]) -> None:
    """Find the sub-graphs of a scope's nodes, and theirs; `taken` keeps paths unique in the whole model."""
    for position, node in enumerate(scope.nodes):
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else []
            graphs.extend(attribute.graphs)
            for index, graph in enumerate(graphs):
                label = f"{scope.node_label(node)}.{attribute.name}" + (f"[{index}]" if len(graphs) > 1 else "")
                path = unique(f"{scope.path}/{label}" if scope.path else label, taken)
                child = _graph_scope(path, graph, scope.function, scope, scope.opsets, taken)
                scope.children_of.setdefault(position, []).append(child)


def unique(name: str, taken: dict[str, int]) -> str:
    """Return the name, with "#2", "#3", ... where it is taken, and take it.

    Args:
        name: The wanted name.
        taken: Every name taken so far, and the last number it was given: a thousand nodes of one name are numbered in
            a thousand steps.
    """
    candidate, count = name, taken.get(name, 1)
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    taken[name] = count
    taken.setdefault(candidate, 1)
    return candidate
