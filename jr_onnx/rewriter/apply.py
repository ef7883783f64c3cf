"""Turn chosen sites into JumpReLU, in place; everything that happens is recorded so that `undo` can take it back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from jr_onnx.errors import RefusalError
from jr_onnx.modelfile import copied
from jr_onnx.modelfile.messages import pack
from jr_onnx.provenance import SiteRecord, Undo
from jr_onnx.rewriter.lowering import LOWERINGS, Jump, Names, constant
from jr_onnx.rewriter.lowering import custom as custom_lowering
from jr_onnx.rewriter.planning import Planned, draws_in_graph_per_site, function_opset, plan_sites
from jr_onnx.rewriter.runtime_kappa import bring_runtime_kappa, demote, uniform_nodes
from jr_onnx.rewriter.scopes import Scope, add_children, function_key, main_opset, substitute, top_scopes, walk
from jr_onnx.rewriter.sites import Findings, LocatedSite, locate
from jr_onnx.rewriter.work import Edit, Wish, Work
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, OP_VERSION

__all__ = ["Edit", "Wish", "apply"]


def apply(
    model: onnx.ModelProto,
    choose: Callable[[Findings], Sequence[LocatedSite]],
    wish: Wish,
    folder: Path | None = None,
) -> Edit:
    """Rewrite the chosen sites of a model in place.

    Args:
        model: The model.
        choose: Is given what was found, once initializers have been demoted (which may bring sites to light), and
            returns the sites to rewrite.
        wish: kappa, lowering and target.
        folder: The folder that external data is relative to, or None.

    Raises:
        RefusalError: A lowering is impossible, or the result would be slow or surprising.
        KappaError: kappa overflows the dtype of a site.
    """
    imports = tuple(pack(item) for item in model.opset_import)
    undo = Undo(model.ir_version, imports, has_ir_version=model.HasField("ir_version"))
    work = Work(model, wish, Names(top_scopes(model)), Edit(), undo, folder)
    if wish.demote_initializer_inputs:
        demote(work)
    findings = locate(model, folder)
    plan = wish.plan.settled(item.site.id for item in findings.located)
    work.wish = replace(wish, plan=plan)
    work.edit.table, work.edit.plan = findings.table, plan
    work.edit.found = tuple(item.site for item in findings.located)
    plans = plan_sites(work, bring_runtime_kappa(work, choose(findings)))
    _write(work, plans)
    _finish(work, function_opset(plans, main_opset(model)))
    work.edit.undo = work.undo
    return work.edit


def _write(work: Work, plans: Sequence[Planned]) -> None:
    """Replace the nodes of the planned sites and record what they were."""
    if any(planned.cap_inside for planned in plans):
        # Default values of a function's attributes came with IR 9 only, so that every node names its cap.
        work.cap_of_others = math.inf
    marks: dict[Scope, dict[int, Planned]] = {}
    for planned in plans:
        marks.setdefault(planned.item.scope, {})[planned.item.index] = planned
    records: dict[str, SiteRecord] = {}

    def write(node: onnx.NodeProto, planned: Planned) -> list[onnx.NodeProto]:
        group, site = _group(work, planned), planned.item.site
        records[site.id] = SiteRecord(
            site.id, site.form, site.dtype, planned.item.scope.path, site.output, planned.kappa, site.cap,
            planned.choice.lowering, len(group), pack(node),
        )  # fmt: skip
        return group

    substitute(marks, write)
    work.edit.records = [records[planned.item.site.id] for planned in plans]
    work.edit.choices = {planned.item.site.id: planned.choice for planned in plans}


def _group(work: Work, planned: Planned) -> list[onnx.NodeProto]:
    """Return the nodes that stand in the place of one site."""
    item, names = planned.item, work.names
    site, match = item.site, item.match
    base = site.output
    nodes: list[onnx.NodeProto] = []
    operand = match.operand
    for part in match.before:
        node = copied(part)
        result = names.fresh(f"{base}/jr_{part.op_type.lower()}")
        node.name, node.output[0] = result, result
        if nodes:
            node.input[0] = operand
        operand = result
        nodes.append(node)
    custom = planned.choice.lowering == "custom"
    apart = match.after is not None and not planned.cap_inside
    jumped = names.fresh(f"{base}/jr_jumped") if apart else site.output
    jump = Jump(
        operand,
        jumped,
        node_name=jumped if apart else site.node_name,
        base=base,
        dtype=site.dtype,
        opset=item.scope.opset,
        kappa=planned.kappa,
        runtime=_runtime_name(work, item.scope),
        draw=_own_draw(work, custom=custom),
        cap=site.cap if planned.cap_inside else work.cap_of_others if custom else None,
    )
    if draws_in_graph_per_site(work.wish.plan):
        drawn = uniform_nodes(work, f"{base}/jr_drawn")
        nodes.extend(drawn)
        jump = replace(jump, runtime=drawn[-1].output[0])
    nodes.extend(LOWERINGS[planned.choice.lowering](jump, names))
    if custom:
        work.jumps.append(jump)
    if apart and match.after is not None:
        nodes.extend(_cap(work, item, jumped))
    return nodes


def _cap(work: Work, item: LocatedSite, jumped: str) -> list[onnx.NodeProto]:
    """Return the Clip that bounds J from above, with a constant where the original had its cap in an attribute."""
    if item.match.after is None or item.site.cap is None:
        return []
    clip = copied(item.match.after)
    clip.input[0] = jumped
    if len(clip.input) == 3 and not clip.input[2]:
        bound = constant(work.names, item.site.output, "cap", item.site.cap, item.site.dtype)
        clip.input[2] = bound.output[0]
        return [bound, clip]
    return [clip]


def _runtime_name(work: Work, scope: Scope) -> str | None:
    return work.clones.inputs.get(scope.root().path, work.runtime) if work.runtime is not None else None


def _own_draw(work: Work, *, custom: bool) -> tuple[float, float] | None:
    random = work.wish.plan.random
    if random is None or random.per != "site" or not custom or random.source != "op":
        return None
    return random.low, random.high


def _finish(work: Work, opset: int) -> None:
    """Add what custom nodes need: the functions, the imports, the IR version."""
    functions = []
    if work.jumps:
        functions.append(custom_lowering.jump_function(custom_lowering.Needs.of(work.jumps, work.wish.target), opset))
    if work.draws:
        functions.append(custom_lowering.draw_function(opset))
    if not functions:
        return
    model = work.model
    work.raise_ir(custom_lowering.MINIMUM_IR, "the operator JumpRelu")
    taken = {function_key(function) for function in model.functions}
    for function in functions:
        if function_key(function) in taken:
            raise RefusalError(
                f"the model already has a function {function_key(function)}, which this rewrite would add"
            )
    # In front of the functions that call them: ONNX's reference evaluator reads functions in this order.
    others = list(model.functions)
    del model.functions[:]
    model.functions.extend([*functions, *others])
    added = tuple(function_key(function) for function in functions)
    work.undo = replace(work.undo, functions_added=(*work.undo.functions_added, *added))
    work.edit.changes.append(f"function {', '.join(added)} added")
    if not _imports(model.opset_import):
        model.opset_import.append(custom_lowering.opset_import())
        work.edit.changes.append(f"opset import {OP_DOMAIN} {OP_VERSION} added")
    _import_in_functions(work)


def _imports(entries: Iterable[onnx.OperatorSetIdProto]) -> bool:
    return any(entry.domain == OP_DOMAIN for entry in entries)


def _import_in_functions(work: Work) -> None:
    changed: dict[str, tuple[str, ...]] = {}
    for function in work.model.functions:
        scope = Scope("", function.node, None, function, None, {})
        if _imports(function.opset_import) or not _calls_jump(scope):
            continue
        if function_key(function) not in work.undo.functions_added:
            changed[function_key(function)] = tuple(pack(item) for item in function.opset_import)
            work.edit.changes.append(f"opset import {OP_DOMAIN} added to function {function_key(function)}")
        function.opset_import.append(custom_lowering.opset_import())
    work.undo = replace(work.undo, function_opset_import=changed)


def _calls_jump(scope: Scope) -> bool:
    add_children(scope, {})
    return any(node.domain == OP_DOMAIN and node.op_type == OP_TYPE for inner in walk(scope) for node in inner.nodes)
