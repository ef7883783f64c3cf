"""The sites of a model as the evaluator sees them: the rewriter's sites, and jumps of the original model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import onnx

from jr_onnx.errors import RefusalError
from jr_onnx.opsets import normal_domain
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter.scopes import Scope, unique, walk
from jr_onnx.rewriter.sites import LocatedSite
from jr_onnx.semantics import CHANNEL_AXIS, OP_DOMAIN, OP_TYPE, SiteKappa, round_kappa
from jr_onnx.torchnet.references import SitePlan

_DEFAULT_ALPHA = 1.0


@dataclass(frozen=True, slots=True)
class TorchSite:
    """A place where JumpReLU is applied.

    Attributes:
        id: The rewriter's id (`jr_onnx.find_sites`).
        number: Position in the module's lists.
        form: As the rewriter names it (`jr_onnx.rewriter.sites.Site`); own_jump for one of the original model.
        op_type: Operator of the node.
        dtype: NumPy name of the element type in the model; kappa is rounded to it.
        scope: Scope path, "" for the main graph.
        node_name: Name of the node, may be "".
        output: Name of the output tensor.
        cap: Upper bound of ReLU6 and similar activations, or None.
        kappa: The jump in the file that was loaded, or one for each channel.
    """

    id: str
    number: int
    form: str
    op_type: str
    dtype: str
    scope: str
    node_name: str
    output: str
    cap: float | None
    kappa: SiteKappa


def torch_sites(located: Sequence[LocatedSite], provenance: Provenance | None) -> list[tuple[TorchSite, SitePlan]]:
    """Return the rewriter's sites with their kappas, and what the compiler must know of each.

    Args:
        located: The sites of the original model.
        provenance: Of the retrofit that the original was restored from, or None.

    Raises:
        RefusalError: The thresholds of a jump that the original has itself lie along another axis than 1.
    """
    kappas = {record.id: record.kappa for record in provenance.sites} if provenance is not None else {}
    result = []
    # A gate or a clamp is a jump only where the caller asked for it, and an operator like any other elsewhere.
    activations = [item for item in located if not item.is_aside or item.site.id in kappas]
    for number, item in enumerate(activations):
        found = item.site
        axis = item.match.jump.axis if item.match.jump is not None else None
        if axis not in (None, CHANNEL_AXIS):
            raise RefusalError(
                f"site {found.id}: its thresholds lie along axis {axis}, and kappas in torch lie along axis 1",
                hint="Evaluate the original, which jr-onnx restore gives back",
            )
        site = TorchSite(
            found.id,
            number,
            found.form,
            found.op_type,
            found.dtype,
            found.scope,
            found.node_name,
            found.output,
            found.cap,
            kappas.get(found.id, 0.0),
        )
        result.append((site, SitePlan(number, found.cap, item.match.operand or None)))
    return result


def own_jumps(
    tops: Sequence[Scope], first: int, sites: Set[tuple[str, str]] = frozenset()
) -> list[tuple[TorchSite, SitePlan]]:
    """Return the JumpReLUs that a model without provenance has: ThresholdedRelu and jr_onnx::JumpRelu nodes.

    Their kappa is the model's own and is not part of a retrofit, but their derivative is replaceable like a site's.

    Args:
        tops: The model's scopes.
        first: The number of the first of them.
        sites: Scope path and output of the sites, which are not jumps of the model's own: ThresholdedRelu with alpha 0.
    """
    result: list[tuple[TorchSite, SitePlan]] = []
    taken: dict[str, int] = {}
    for scope, node in _jump_nodes(tops):
        kappa, cap = _constants(node)
        if kappa is None or (scope.path, str(node.output[0])) in sites:
            continue
        label = scope.node_label(node)
        name = unique(f"{scope.path}/{label}" if scope.path else label, taken)
        number = first + len(result)
        output = str(node.output[0])
        site = TorchSite(
            name, number, "own_jump", str(node.op_type), "float32", scope.path, str(node.name), output, cap, kappa
        )
        result.append((site, SitePlan(number, cap, str(node.input[0]))))
    return result


def _jump_nodes(tops: Sequence[Scope]) -> Iterator[tuple[Scope, onnx.NodeProto]]:
    for top in tops:
        if top.function is not None and top.function.domain == OP_DOMAIN:
            continue
        for scope in walk(top):
            for node in scope.nodes:
                key = (normal_domain(node.domain), node.op_type)
                if key in (("", "ThresholdedRelu"), (OP_DOMAIN, OP_TYPE)) and len(node.input) == 1 and node.output:
                    yield scope, node


def _constants(node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """Return kappa and cap; kappa is None where it is negative, drawn, or the attribute of a function."""
    if any(attribute.ref_attr_name for attribute in node.attribute):
        return None, None
    values = {str(attribute.name): float(attribute.f) for attribute in node.attribute}
    if node.op_type == "ThresholdedRelu":
        alpha = values.get("alpha", _DEFAULT_ALPHA)
        return (round_kappa(alpha, "float32") if alpha >= 0 else None), None
    return values.get("kappa"), values.get("cap")
