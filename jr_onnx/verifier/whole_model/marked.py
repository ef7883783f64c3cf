"""The original with its sites marked or cut out: the models that reference runs are made of.

    marked:  z -> [ReLU] -> y   becomes   z -> jr_onnx::JumpRelu(site="id") -> y     for a reference evaluator
    cut:     z -> [ReLU] -> y   becomes   output z      input y                      for ONNX Runtime

Fused activations come apart first (Conv, then the site). No lowering takes part: what replaces a site here is NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from jr_onnx.element_types import NUMBERS
from jr_onnx.modelfile import copied
from jr_onnx.rewriter.scopes import Scope, all_nodes, substitute
from jr_onnx.rewriter.sites import LocatedSite, locate
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, OP_VERSION


@dataclass(frozen=True)
class CutSite:
    """A site of the cut model: its pre-activation is an output, its result an input."""

    id: str
    operand: str
    output: str


def marked(original: onnx.ModelProto, sites: set[str], folder: Path | None = None) -> onnx.ModelProto:
    """Return a copy in which the named sites are nodes jr_onnx::JumpRelu with the site's id, in every scope."""
    model = copied(original)

    def mark(item: LocatedSite, operand: str) -> list[onnx.NodeProto]:
        return [helper.make_node(OP_TYPE, [operand], [item.site.output], domain=OP_DOMAIN, site=item.site.id)]

    _replace_sites(model, sites, mark, folder)
    imported = [entry.domain for entry in model.opset_import]
    if OP_DOMAIN not in imported:
        model.opset_import.append(helper.make_opsetid(OP_DOMAIN, OP_VERSION))
    for function in model.functions:
        if OP_DOMAIN not in [entry.domain for entry in function.opset_import]:
            function.opset_import.append(helper.make_opsetid(OP_DOMAIN, OP_VERSION))
    return model


def cut(
    original: onnx.ModelProto, sites: set[str], folder: Path | None = None
) -> tuple[onnx.ModelProto, list[CutSite]]:
    """Return a copy in which the named sites, all in the main graph, are cut out, and where the cuts are."""
    model = copied(original)
    cuts: list[CutSite] = []
    types: dict[str, int] = {}

    def remove(item: LocatedSite, operand: str) -> list[onnx.NodeProto]:
        cuts.append(CutSite(item.site.id, operand, item.site.output))
        types[operand] = types[item.site.output] = NUMBERS[item.site.dtype]
        return []

    _replace_sites(model, sites, remove, folder)
    known = {value.name for value in model.graph.output}
    results = {item.output for item in cuts}
    for item in cuts:
        model.graph.input.append(helper.make_tensor_value_info(item.output, types[item.output], None))
        if item.operand not in known and item.operand not in results:
            known.add(item.operand)
            model.graph.output.append(helper.make_tensor_value_info(item.operand, types[item.operand], None))
    return model, cuts


def exposed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy with further outputs: name of a tensor of the main graph -> NumPy name of its type."""
    copy = copied(model)
    known = {value.name for value in copy.graph.output}
    for name, dtype in names.items():
        if name not in known:
            known.add(name)
            copy.graph.output.append(helper.make_tensor_value_info(name, NUMBERS[dtype], None))
    return copy


def _replace_sites(
    model: onnx.ModelProto,
    sites: set[str],
    write: Callable[[LocatedSite, str], list[onnx.NodeProto]],
    folder: Path | None,
) -> None:
    """Put `before` nodes and what `write` returns in the place of every named site."""
    located = [item for item in locate(model, folder).located if item.site.id in sites]
    taken = {name for node in all_nodes(model) for name in node.output}
    marks: dict[Scope, dict[int, LocatedSite]] = {}
    for item in located:
        marks.setdefault(item.scope, {})[item.index] = item

    def replaced(_: onnx.NodeProto, item: LocatedSite) -> list[onnx.NodeProto]:
        before = _unfused(item, taken)
        return [*before, *write(item, before[-1].output[0] if before else item.match.operand)]

    substitute(marks, replaced)


def _unfused(item: LocatedSite, taken: set[str]) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for number, part in enumerate(item.match.before):
        node = copied(part)
        name = f"{item.site.output}/verify_{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.output[0] = name
        if nodes:
            node.input[0] = nodes[-1].output[0]
        nodes.append(node)
    return nodes
