"""The node groups of a retrofit: what stands in the file in the place of every site, exactly as it is there.

    [before ...] -> operand -> [jump ...] -> output

`before` is there for activations that were unfused (the plain Conv or Gemm); `jump` is J with its cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from jr_onnx.errors import VerificationError
from jr_onnx.modelfile import copied
from jr_onnx.modelfile.wire import Payloads
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.rewriter.constants import ConstantFinder, NotConstant
from jr_onnx.rewriter.scopes import Scope, function_key, scopes_by_path
from jr_onnx.rewriter.sites import LocatedSite, locate
from jr_onnx.rewriter.stored import expand_constants
from jr_onnx.semantics import OP_DOMAIN


@dataclass(frozen=True)
class SiteGroup:
    """The nodes of one retrofitted site.

    Attributes:
        record: What the provenance says of it.
        scope: Where it stands.
        operand: Name of the pre-activation.
        jump: The nodes that compute J of it, with its cap.
        constants: Constants from outside the group that it reads, by name.
        runtime: Name of the float32 scalar that holds kappa at run time, or None.
    """

    record: SiteRecord
    scope: Scope
    operand: str
    jump: tuple[onnx.NodeProto, ...]
    constants: dict[str, onnx.TensorProto]
    runtime: str | None

    @property
    def in_main_graph(self) -> bool:
        """Whether the site's values can be seen from outside the model."""
        return self.scope.is_main

    @property
    def draws(self) -> bool:
        """Whether the group draws its own kappa."""
        names = {attribute.name for node in self.jump for attribute in node.attribute}
        return "kappa_low" in names or any(node.op_type == "RandomUniform" for node in self.jump)


def site_groups(
    model: onnx.ModelProto,
    record: Provenance,
    original: onnx.ModelProto,
    folder: Path | None = None,
    payloads: Payloads | None = None,
) -> list[SiteGroup]:
    """Return the groups of all sites, in graph order.

    Args:
        model: The retrofit.
        record: Its provenance.
        original: The model before, in which the sites are found again.
        folder: The folder that external data is relative to, or None.
        payloads: What tokens in the retrofit stand for.

    Raises:
        VerificationError: A site is not in the file as its provenance says, or reads something else.
    """
    scopes = scopes_by_path(model)
    located = {item.site.id: item for item in locate(original, folder).located}
    constants = ConstantFinder(model, folder)
    runtimes = _runtime_names(model, record)
    held = payloads or Payloads()
    return [_group(scopes, located, constants, runtimes, site, held) for site in record.sites]


def _group(
    scopes: dict[str, Scope],
    located: dict[str, LocatedSite],
    constants: ConstantFinder,
    runtimes: set[str],
    site: SiteRecord,
    payloads: Payloads,
) -> SiteGroup:
    scope, item = scopes.get(site.scope), located.get(site.id)
    if item is None:
        raise VerificationError(f"site {site.id} of the provenance is not in the original")
    end = _index_of(scope.nodes, site.output) if scope is not None else None
    if scope is None or end is None or end + 1 < site.nodes:
        raise VerificationError(f"site {site.id} is not in the file: nothing computes {site.output!r} in its scope")
    nodes = list(scope.nodes[end - site.nodes + 1 : end + 1])
    if isinstance(site.kappa, tuple):
        nodes = [copied(node) for node in nodes]
        expand_constants(nodes, payloads, len(site.kappa))
    unfused = len(item.match.before)
    jump = tuple(nodes[unfused:])
    operand = nodes[unfused - 1].output[0] if unfused else item.match.operand
    free = _free_names(jump)
    found_runtime = next((name for name in free if name in runtimes), None)
    fixed: dict[str, onnx.TensorProto] = {}
    for name in free:
        if name in (operand, found_runtime):
            continue
        value = constants.value(scope, name)
        if isinstance(value, NotConstant):
            raise VerificationError(
                f"site {site.id} reads {name!r}, expected the pre-activation of the original, {operand!r}"
            )
        fixed[name] = onnx.numpy_helper.from_array(value, name)
    if operand not in free:
        raise VerificationError(f"site {site.id} does not read its pre-activation {operand!r}")
    return SiteGroup(site, scope, operand, jump, fixed, found_runtime)


def _index_of(nodes: Sequence[onnx.NodeProto], output: str) -> int | None:
    return next((index for index, node in enumerate(nodes) if output in node.output), None)


def _free_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the names that the nodes read and none of them computes, in order of first use."""
    computed = {name for node in nodes for name in node.output}
    read = [name for node in nodes for name in node.input if name and name not in computed]
    return list(dict.fromkeys(read))


def _runtime_names(model: onnx.ModelProto, record: Provenance) -> set[str]:
    """Return the names under which a run-time kappa is visible: graph inputs, draws, inputs of cloned functions."""
    names = set(record.undo.inputs_added)
    for node in list(model.graph.node)[: record.undo.nodes_prepended]:
        names.update(node.output)
    if record.plan.random is not None or record.plan.input_name is not None:
        added = set(record.undo.functions_added)
        clones = [function for function in model.functions if function_key(function) in added]
        names.update(function.input[-1] for function in clones if function.input and function.domain != OP_DOMAIN)
    return names
