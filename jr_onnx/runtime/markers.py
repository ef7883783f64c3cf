"""Follow sites through ONNX Runtime's optimiser: every site becomes an operator that nothing else can be taken for.

    site i  ->  HardSigmoid(z; alpha = 2 + i, beta = b)  ->  [optimiser]  ->  wherever alpha = 2 + i and beta = b stand

ONNX Runtime fuses HardSigmoid wherever it fuses Relu (convolutions with and without a residual sum, Gemm), keeps it in
the blocked NCHWc layout, and carries its parameters along. Names do not survive that: in the blocked layout every
tensor gets a new one. Two sites never merge, for their parameters differ; and no optimisation that is true of Relu
alone (folding it into a quantiser, a Clip or another Relu) can slip in. What the optimiser returns is therefore valid
for any element-wise function at the sites, and the jump may be put there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from jr_onnx.modelfile import copied
from jr_onnx.provenance import SiteRecord
from jr_onnx.rewriter.scopes import Scope, all_scopes, function_key, scopes_by_path, substitute, top_scopes, walk
from jr_onnx.rewriter.sites import locate

_FUSED_FORMS = ("fused_conv", "fused_gemm", "nchwc_conv")
_FIRST_INPUT = ("relu", "clip", "slope", "thresholded")  # forms of which the operand is the first input
_FIRST_ALPHA = 2.0  # far from 1/6, whose product with z ONNX Runtime fuses to HardSwish
_SENTINELS = tuple(-7.0 - 0.5**k for k in range(1, 12))
_ACTIVATION = b"HardSigmoid"


class NotFollowedError(Exception):
    """A site cannot be followed; the message is the reason for the plain path."""


@dataclass
class Markers:
    """The markers of a model.

    Attributes:
        beta: The sentinel that tells markers from the model's own HardSigmoid.
        sites: By alpha.
        expected: How often each alpha must be found: once, or once for every call of the site's function.
        placed: Where they are in the model before optimisation.
    """

    beta: float
    sites: dict[float, SiteRecord] = field(default_factory=dict)
    expected: dict[float, int] = field(default_factory=dict)
    placed: list[Found] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """A marker in a graph.

    Attributes:
        scope: Where.
        index: Position of its node in the scope.
        site: The site it stands for.
        fused: Whether it is the activation of a larger node.
    """

    scope: Scope
    index: int
    site: SiteRecord
    fused: bool


def insert_markers(model: onnx.ModelProto, sites: Sequence[SiteRecord], folder: Path | None = None) -> Markers:
    """Put a marker at every site of a restored model, in place.

    Args:
        model: The model.
        sites: Its sites.
        folder: The folder that external data is relative to, or None.

    Raises:
        NotFollowedError: A site cannot carry a marker.
    """
    markers = Markers(_free_sentinel(model))
    calls = _calls(model)
    operands = _operands(model, sites, folder)
    scopes = scopes_by_path(model)
    marks: dict[Scope, dict[int, float]] = {}
    for number, site in enumerate(sites):
        alpha = _FIRST_ALPHA + number
        markers.sites[alpha] = site
        scope = _scope_of(site, scopes)
        markers.expected[alpha] = calls.get(scope.root().path, 0) if scope is not None else 0
        if scope is None or markers.expected[alpha] == 0:
            raise NotFollowedError(f"site {site.id} stands where nothing calls it")
        index = next(index for index, node in enumerate(scope.nodes) if site.output in node.output)
        marks.setdefault(scope, {})[index] = alpha
        markers.placed.append(Found(scope, index, site, site.form in _FUSED_FORMS))
    substitute(marks, lambda node, alpha: [_marked(node, alpha, markers, operands)])
    return markers


def find_markers(model: onnx.ModelProto, markers: Markers) -> list[Found]:
    """Find every marker in the optimised model.

    Raises:
        NotFollowedError: A site is missing, occurs too often, or in an unknown form.
    """
    found = []
    counts = dict.fromkeys(markers.sites, 0)
    for scope in all_scopes(model):
        for index, node in enumerate(scope.nodes):
            verdict = _read(node, markers)
            if verdict is None:
                continue
            alpha, fused = verdict
            counts[alpha] += 1
            found.append(Found(scope, index, markers.sites[alpha], fused))
    for alpha, count in counts.items():
        if count != markers.expected[alpha]:
            raise NotFollowedError(
                f"after ONNX Runtime's optimisation site {markers.sites[alpha].id} stands in the graph {count} times, "
                f"expected {markers.expected[alpha]}"
            )
    return found


def _marked(node: onnx.NodeProto, alpha: float, markers: Markers, operands: dict[str, str]) -> onnx.NodeProto:
    site = markers.sites[alpha]
    if site.form not in _FUSED_FORMS:
        return helper.make_node(
            "HardSigmoid", [operands.get(site.id, node.input[0])], [site.output], name=node.name, alpha=alpha,
            beta=markers.beta,
        )  # fmt: skip
    fused = copied(node)
    clear_activation(fused)
    fused.attribute.append(helper.make_attribute("activation", "HardSigmoid"))
    if site.form == "fused_gemm":
        fused.attribute.append(helper.make_attribute("activation_alpha", alpha))
        fused.attribute.append(helper.make_attribute("activation_beta", markers.beta))
    else:
        fused.attribute.append(helper.make_attribute("activation_params", [alpha, markers.beta]))
    return fused


def clear_activation(node: onnx.NodeProto) -> None:
    """Take a node's fused activation and its parameters off."""
    for index in reversed(range(len(node.attribute))):
        if node.attribute[index].name.startswith("activation"):
            del node.attribute[index]


def _read(node: onnx.NodeProto, markers: Markers) -> tuple[float, bool] | None:
    """Return the alpha of a node's marker and whether it is fused, None for a node without one."""
    values = {attribute.name: attribute for attribute in node.attribute}
    alpha = beta = None
    fused = "activation" in values
    if node.op_type == "HardSigmoid":
        alpha, beta = (values[name].f if name in values else None for name in ("alpha", "beta"))
    elif fused and values["activation"].s == _ACTIVATION:
        if "activation_params" in values and len(values["activation_params"].floats) == 2:
            alpha, beta = values["activation_params"].floats
        elif "activation_alpha" in values and "activation_beta" in values:
            alpha, beta = values["activation_alpha"].f, values["activation_beta"].f
    if alpha is None or beta != markers.beta or alpha not in markers.sites:
        return None
    return float(alpha), fused


def _scope_of(site: SiteRecord, scopes: dict[str, Scope]) -> Scope | None:
    """Return the scope of a site in the restored model.

    A kappa input clones functions, and the record names the clone's scope, which is gone; the id names the original's.
    """
    if site.scope in scopes:
        return scopes[site.scope]
    for path in sorted(scopes, key=len, reverse=True):
        if site.id.startswith(f"{path}/") and any(site.output in node.output for node in scopes[path].nodes):
            return scopes[path]
    return None


def _free_sentinel(model: onnx.ModelProto) -> float:
    taken = {value for scope in all_scopes(model) for value in _betas(scope)}
    for value in _SENTINELS:
        if value not in taken:
            return value
    raise NotFollowedError("the model's own HardSigmoid operators use every parameter that could mark a site")


def _betas(scope: Scope) -> Iterator[float]:
    for node in scope.nodes:
        for attribute in node.attribute:
            if attribute.name in ("beta", "activation_beta"):
                yield float(np.float32(attribute.f))
            elif attribute.name == "activation_params":
                yield from (float(value) for value in attribute.floats)


def _operands(model: onnx.ModelProto, sites: Sequence[SiteRecord], folder: Path | None) -> dict[str, str]:
    """Return the operands of the sites where it is not simply the first input: Max(0, z), Where(z > 0, z, 0), ...

    Raises:
        NotFollowedError: A site is not found again, as where its zero lies in external data.
    """
    wanted = {site.id for site in sites if site.form not in (*_FUSED_FORMS, *_FIRST_INPUT)}
    if not wanted:
        return {}
    operands = {item.site.id: item.match.operand for item in locate(model, folder).located if item.site.id in wanted}
    lost = sorted(wanted - set(operands))
    if lost:
        raise NotFollowedError(f"the operand of site {lost[0]} is not found in the restored model")
    return operands


def _calls(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often the body of every function stands in the graph once all calls are inlined, by scope path."""
    tops = top_scopes(model)
    bodies = {function_key(top.function): top for top in tops if top.function is not None}
    counts = {top.path: 0 for top in tops}

    def visit(top: Scope) -> None:
        counts[top.path] += 1
        for scope in walk(top):
            for node in scope.nodes:
                body = bodies.get(function_key(node))
                if body is not None:
                    visit(body)

    visit(tops[0])
    return counts
