"""Rewrite the jumps that a model has itself: which kappas make J compute the same, and what becomes unused.

    h;  r = Relu(h);  c = Greater(h, t);  m = Cast(c);  y = Mul(r, m)     ->     h;  y = J(h; kappa = t)

ONNX Runtime runs nodes whose results nothing reads, so that they are removed; `undo` puts them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jr_onnx.errors import RefusalError
from jr_onnx.rewriter.scopes import Scope, walk
from jr_onnx.rewriter.sites import Findings, LocatedSite
from jr_onnx.semantics import SiteKappa


def own_kappas(findings: Findings, chosen: Sequence[LocatedSite]) -> dict[str, SiteKappa]:
    """Return the kappa of every chosen jump.

    Raises:
        RefusalError: A site is no jump of the model's own, or its thresholds cannot be kappas.
    """
    found: dict[str, SiteKappa] = {}
    for item in chosen:
        if item.match.jump is None:
            raise RefusalError(f"site {item.site.id} is not a jump that the model has itself")
        try:
            found[item.site.id] = findings.thresholds.kappas(item.match.jump, item.site.dtype)
        except RefusalError as error:
            raise RefusalError(f"site {item.site.id}: {error.message}", hint=error.hint) from None
    return found


def unused_nodes(scope: Scope, replaced: Mapping[int, str]) -> set[int]:
    """Return the nodes of a scope whose results nothing reads once others are replaced.

    Args:
        scope: The scope.
        replaced: Position of a node that is replaced -> what is read in its place.
    """
    kept = scope.results | set(replaced.values())
    kept.update(
        name for child in scope.children for inner in walk(child) for node in inner.nodes for name in node.input
    )
    kept.update(name for child in scope.children for inner in walk(child) for name in inner.results)
    makers = {name: index for index, node in enumerate(scope.nodes) for name in node.output if name}
    readers: dict[str, set[int]] = {}
    for index, node in enumerate(scope.nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(index)
    gone = set(replaced)
    waiting = [name for index in replaced for name in scope.nodes[index].input]
    while waiting:
        index = makers.get(waiting.pop(), -1)
        if index < 0 or index in gone or index in scope.children_of:
            continue
        node = scope.nodes[index]
        if all(name not in kept and readers.get(name, set()) <= gone for name in node.output if name):
            gone.add(index)
            waiting.extend(node.input)
    return gone - set(replaced)
