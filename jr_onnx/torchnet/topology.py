"""The order of a scope's nodes, the branches of an If, and the body of a function for one call."""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx

from jr_onnx.errors import ModelError
from jr_onnx.rewriter.scopes import Scope


def branch_bodies(scope: Scope, position: int) -> list[Scope]:
    """Return the then and the else branch of an If, in this order."""
    node = scope.nodes[position]
    names = [str(attribute.name) for attribute in node.attribute if attribute.HasField("g")]
    bodies = dict(zip(names, scope.children_of.get(position, []), strict=False))
    return [bodies[name] for name in ("then_branch", "else_branch") if name in bodies]


def needed_nodes(scope: Scope, known: Container[str], wanted: Iterable[str]) -> list[int]:
    """Return the positions of the nodes that the wanted names need, in an order in which they can run.

    Files whose nodes do not stand in topological order are put in order. What `known` holds needs no node.

    Raises:
        ModelError: The graph has a cycle.
    """
    producer = {str(name): at for at, node in enumerate(scope.nodes) for name in node.output if name}
    order: list[int] = []
    state: dict[int, int] = {}  # 1: its inputs are being visited, 2: done
    stack: list[tuple[int, bool]] = [(producer[name], False) for name in reversed(list(wanted)) if name in producer]
    while stack:
        at, leaving = stack.pop()
        if leaving:
            state[at] = 2
            order.append(at)
            continue
        if state.get(at) == 2:
            continue
        if state.get(at) == 1:
            raise ModelError(f"the node {scope.node_label(scope.nodes[at])!r} depends on itself")
        state[at] = 1
        stack.append((at, True))
        for name in reversed(_read_names(scope, at)):
            before = producer.get(name)
            if before is not None and name not in known and state.get(before) != 2:
                stack.append((before, False))
    return order


def _read_names(scope: Scope, position: int) -> list[str]:
    """Return the names a node reads, those that its sub-graphs capture included."""
    names = [str(name) for name in scope.nodes[position].input if name]
    for child in scope.children_of.get(position, []):
        for at in range(len(child.nodes)):
            names.extend(_read_names(child, at))
        if child.graph is not None:
            names.extend(str(value.name) for value in child.graph.output)
    return names


def without_inputs(called: Scope, absent: set[str]) -> Scope:
    """Return a function's body for a call that leaves optional inputs out: there they are empty names."""
    if not absent:
        return called
    nodes = []
    for node in called.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(copy.input):
            if name in absent:
                copy.input[index] = ""
        nodes.append(copy)
    return Scope(called.path, nodes, called.graph, called.function, called.parent, called.opsets, called.children_of)
