"""How large a model is once every call of a function is replaced by its body, as a runtime does it."""

from __future__ import annotations

from collections.abc import Sequence

from jr_onnx.errors import ModelError
from jr_onnx.rewriter.scopes import Scope, function_key, walk

MOST_ADDED = 500_000


def expanded_size(tops: Sequence[Scope], most_added: int = MOST_ADDED) -> int:
    """Return how many nodes the main graph has with all calls expanded.

    Args:
        tops: The scopes of the main graph and of the function bodies, as `scopes.top_scopes` gives them.
        most_added: How many nodes the calls may add to those of the file.

    Raises:
        ModelError: A function calls itself, or there are too many nodes: functions that call each other twice each
            grow as powers of two.
    """
    bodies = {function_key(scope.function): scope for scope in tops if scope.function is not None}
    sizes: dict[str, int] = {}
    open_calls: list[str] = []

    def size(scope: Scope) -> int:
        total = 0
        for inner in walk(scope):
            total += len(inner.nodes)
            for node in inner.nodes if bodies else ():
                key = function_key(node)
                if key in bodies:
                    total += size_of_function(key)
        return total

    def size_of_function(key: str) -> int:
        if key in open_calls:
            circle = " -> ".join([*open_calls[open_calls.index(key) :], key])
            raise ModelError(f"a function of the model calls itself, which ONNX forbids: {circle}")
        if key not in sizes:
            open_calls.append(key)
            sizes[key] = size(bodies[key])
            open_calls.pop()
        return sizes[key]

    total = size(tops[0])
    own = sum(len(scope.nodes) for top in tops for scope in walk(top))
    if total > own + most_added:
        raise ModelError(
            f"the calls of the model's functions expand to {total} nodes, more than can be followed "
            f"({own + most_added})",
            hint="Export the model again without functions that call each other many times",
        )
    return total
