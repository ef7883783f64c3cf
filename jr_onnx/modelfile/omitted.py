"""Refuse a node that omits an input of a variable number: ONNX Runtime opens such a model, and crashes when it runs.

Max(x, "")      an operator with any number of inputs has no optional ones (ONNX IR specification, "Variadic")
Clip(x, "", m)  the lower bound is optional: fine
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import onnx
from onnx import defs

from jr_onnx.errors import ModelError
from jr_onnx.opsets import normal_domain

_VARIADIC = defs.OpSchema.FormalParameterOption.Variadic


def require_inputs(model: onnx.ModelProto) -> None:
    """Look at every node of a model; takes a time that grows with their number.

    Raises:
        ModelError: A node omits an input that is not optional.
    """
    owners = ((model.graph.node, model.opset_import), *((item.node, item.opset_import) for item in model.functions))
    for nodes, imports in owners:
        versions = {normal_domain(item.domain): item.version for item in imports}
        for node in _all(nodes):
            if "" not in node.input:
                continue
            domain = normal_domain(node.domain)
            first = _first_variadic(domain, node.op_type, versions.get(domain, 0))
            for index, name in enumerate(node.input):
                if not name and first is not None and index >= first:
                    raise ModelError(
                        f"the node {node.name or ', '.join(node.output)!r} omits input {index} of {node.op_type}, "
                        "which takes any number of inputs and has no optional ones",
                        hint="The file is damaged; export it again",
                    )


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    waiting = [iter(nodes)]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(iter(attribute.g.node))
                waiting.extend(iter(graph.node) for graph in attribute.graphs)


@cache
def _first_variadic(domain: str, op_type: str, version: int) -> int | None:
    """Return from which input on an operator takes any number, None for one that does not or is not known."""
    try:
        inputs = defs.get_schema(op_type, version, domain).inputs
    except (defs.SchemaError, TypeError):  # a version beyond an int's range is a TypeError
        return None
    return len(inputs) - 1 if inputs and inputs[-1].option == _VARIADIC else None
