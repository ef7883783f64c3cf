"""A model in the form that ONNX's reference evaluator insists on, and ONNX Runtime does not.

    domain "ai.onnx"  ->  ""         the evaluator knows the standard domain by one name
    functions         ->  inlined    it hands operators of one's own to graphs, not to functions
    nodes             ->  in an order in which everything is computed before it is used

Nothing that is computed changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.inliner

from jr_onnx.errors import one_line
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.scopes import Scope, all_scopes, substitute, walk
from jr_onnx.verifier.evaluators.errors import CannotLoadError


def evaluator_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in the evaluator's form; the argument may be changed.

    Raises:
        CannotLoadError: Its functions cannot be inlined.
    """
    for imports in (model.opset_import, *(function.opset_import for function in model.functions)):
        for entry in imports:
            entry.domain = normal_domain(entry.domain)
    for scope in all_scopes(model):
        for node in scope.nodes:
            node.domain = normal_domain(node.domain)
    moves: dict[Scope, dict[int, onnx.NodeProto]] = {}
    for scope in all_scopes(model):
        order = _order([(_reads(scope, index), set(node.output)) for index, node in enumerate(scope.nodes)])
        if order != sorted(order):
            moves[scope] = {index: scope.nodes[other] for index, other in enumerate(order)}
    substitute(moves, lambda _, node: [node])
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise CannotLoadError(f"onnx cannot inline the functions for the reference: {one_line(error)}") from error


def _reads(scope: Scope, index: int) -> set[str]:
    """Return the names that a node and its sub-graphs read."""
    names = set(scope.nodes[index].input)
    for child in scope.children_of.get(index, []):
        for inner in walk(child):
            names.update(name for node in inner.nodes for name in node.input)
            if inner.graph is not None:
                names.update(value.name for value in inner.graph.output)
    return names - {""}


def _order(items: Sequence[tuple[set[str], set[str]]]) -> list[int]:
    """Return positions so that what an item needs comes before it; given order is kept where it can be.

    Args:
        items: Pairs of what an item needs and what it gives. A cycle keeps its given order.
    """
    giver = {name: index for index, (_, gives) in enumerate(items) for name in gives if name}
    placed: list[int] = []
    done: set[int] = set()
    for start in range(len(items)):
        stack = [start]
        waiting: set[int] = set()
        while stack:
            index = stack[-1]
            missing = sorted({giver[name] for name in items[index][0] if name in giver} - done - waiting - {index})
            if index in done:
                stack.pop()
            elif missing and index not in waiting:
                waiting.add(index)
                stack.extend(reversed(missing))
            else:
                stack.pop()
                done.add(index)
                placed.append(index)
    return placed
