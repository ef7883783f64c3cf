"""Turn chosen sites into JumpReLU, in place; everything that happens is recorded so that `undo` can take it back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from jr_onnx.errors import RefusalError
from jr_onnx.modelfile import copied
from jr_onnx.modelfile.messages import pack
from jr_onnx.modelfile.wire import Payloads
from jr_onnx.opsets import main_opset
from jr_onnx.provenance import SiteRecord, Undo
from jr_onnx.rewriter.edit import Edit
from jr_onnx.rewriter.lowering import LOWERINGS, Jump, Names, constant
from jr_onnx.rewriter.lowering import custom as custom_lowering
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.own_jumps import own_kappas, unused_nodes
from jr_onnx.rewriter.planning import Planned, draws_in_graph_per_site, function_opset, plan_sites
from jr_onnx.rewriter.runtime_kappa import bring_runtime_kappa, demote, uniform_nodes
from jr_onnx.rewriter.scopes import Scope, add_children, function_key, substitute, top_scopes, walk
from jr_onnx.rewriter.selection import select, select_recorded
from jr_onnx.rewriter.sites import LocatedSite, locate
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, OP_VERSION


def apply(
    model: onnx.ModelProto,
    options: Options,
    folder: Path | None = None,
    recorded: Mapping[str, SiteRecord] | None = None,
    payloads: Payloads | None = None,
) -> Edit:
    """Rewrite the sites that the options choose, in place.

    Args:
        model: The model.
        options: kappa, filters, lowering and target.
        folder: The folder that external data is relative to, or None.
        recorded: The sites of an earlier rewrite, to be done again in their place; or None.
        payloads: What tokens in the model stand for; the thresholds of its own jumps may be among them.

    Raises:
        NoSiteError: The model has no site, or the options exclude all of them.
        RefusalError: A lowering is impossible, the result would be slow or surprising, or a recorded site is missing.
        KappaError: kappa overflows the dtype of a site, or names none.
    """
    imports = tuple(pack(item) for item in model.opset_import)
    undo = Undo(model.ir_version, imports, has_ir_version=model.HasField("ir_version"))
    edit = Edit(model, options, options.plan, Names(top_scopes(model)), undo, folder, recorded)
    if options.demote_initializer_inputs:
        demote(edit)
    findings = locate(model, folder, payloads=payloads)
    edit.table, edit.found = findings.table, tuple(item.site for item in findings.located)
    edit.plan = options.plan.settled(site.id for site in edit.found)
    chosen = select(findings, options) if recorded is None else select_recorded(findings, recorded)
    if options.plan.own:
        edit.own = own_kappas(findings, chosen)
    plans = plan_sites(edit, bring_runtime_kappa(edit, chosen), findings.shapes)
    _write(edit, plans)
    _finish(edit, function_opset(plans, main_opset(model)))
    return edit


def _write(edit: Edit, plans: Sequence[Planned]) -> None:
    """Replace the nodes of the planned sites and record what they were."""
    if any(planned.cap_inside for planned in plans):
        # Default values of a function's attributes came with IR 9 only, so that every node names its cap.
        edit.cap_of_others = math.inf
    edit.kappa_is_input = any(
        planned.choice.lowering == "custom" and isinstance(planned.kappa, tuple) for planned in plans
    )
    marks: dict[Scope, dict[int, Planned]] = {}
    for planned in plans:
        marks.setdefault(planned.item.scope, {})[planned.item.index] = planned
    records: dict[str, SiteRecord] = {}

    def write(node: onnx.NodeProto, planned: Planned) -> list[onnx.NodeProto]:
        group, site = _group(edit, planned), planned.item.site
        records[site.id] = SiteRecord(
            site.id, site.form, site.dtype, planned.item.scope.path, site.output, planned.kappa, site.cap,
            planned.choice.lowering, len(group), pack(node), planned.rank,
        )  # fmt: skip
        return group

    removals: dict[Scope, dict[int, Planned | None]] = {scope: dict(here) for scope, here in marks.items()}
    if edit.plan.own:
        for scope, here in marks.items():
            gone = unused_nodes(scope, {index: planned.item.match.operand for index, planned in here.items()})
            removals[scope].update(dict.fromkeys(gone))
            removed = tuple((scope.path, index, pack(scope.nodes[index])) for index in sorted(gone))
            edit.undo = replace(edit.undo, nodes_removed=(*edit.undo.nodes_removed, *removed))
        count = len(edit.undo.nodes_removed)
        if count:
            edit.changes.append(f"{count} node{'s' if count != 1 else ''} removed that nothing reads any more")
    substitute(removals, lambda node, planned: [] if planned is None else write(node, planned))
    edit.records = [records[planned.item.site.id] for planned in plans]
    edit.choices = {planned.item.site.id: planned.choice for planned in plans}


def _group(edit: Edit, planned: Planned) -> list[onnx.NodeProto]:
    """Return the nodes that replace one site."""
    item, names = planned.item, edit.names
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
        runtime=_runtime_name(edit, item.scope),
        draw=_own_draw(edit, custom=custom),
        cap=site.cap if planned.cap_inside else edit.cap_of_others if custom else None,
        rank=planned.rank,
        kappa_is_input=custom and edit.kappa_is_input,
    )
    if draws_in_graph_per_site(edit.plan):
        drawn = uniform_nodes(edit, f"{base}/jr_drawn")
        nodes.extend(drawn)
        jump = replace(jump, runtime=drawn[-1].output[0])
    nodes.extend(LOWERINGS[planned.choice.lowering](jump, names))
    if custom:
        edit.jumps.append(jump)
    if apart and match.after is not None:
        nodes.extend(_cap(edit, item, jumped))
    return nodes


def _cap(edit: Edit, item: LocatedSite, jumped: str) -> list[onnx.NodeProto]:
    """Return the Clip that bounds J from above, with a constant where the original had its cap in an attribute."""
    if item.match.after is None or item.site.cap is None:
        return []
    clip = copied(item.match.after)
    clip.input[0] = jumped
    if len(clip.input) == 3 and not clip.input[2]:
        bound = constant(edit.names, item.site.output, "cap", item.site.cap, item.site.dtype)
        clip.input[2] = bound.output[0]
        return [bound, clip]
    return [clip]


def _runtime_name(edit: Edit, scope: Scope) -> str | None:
    return edit.clones.inputs.get(scope.root().path, edit.runtime) if edit.runtime is not None else None


def _own_draw(edit: Edit, *, custom: bool) -> tuple[float, float] | None:
    random = edit.plan.random
    if random is None or random.per != "site" or not custom or random.source != "op":
        return None
    return random.low, random.high


def _finish(edit: Edit, opset: int) -> None:
    """Add what custom nodes need: the functions, the imports, the IR version."""
    functions = []
    if edit.jumps:
        functions.append(
            custom_lowering.jump_function(custom_lowering.Needs.of(edit.jumps, edit.options.target), opset)
        )
    if edit.draws:
        functions.append(custom_lowering.draw_function(opset))
    if not functions:
        return
    model = edit.model
    edit.raise_ir(custom_lowering.MINIMUM_IR, "the operator JumpRelu")
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
    edit.undo = replace(edit.undo, functions_added=(*edit.undo.functions_added, *added))
    edit.changes.append(f"function {', '.join(added)} added")
    if not _imports(model.opset_import):
        model.opset_import.append(custom_lowering.opset_import())
        edit.changes.append(f"opset import {OP_DOMAIN} {OP_VERSION} added")
    _import_in_functions(edit)


def _imports(entries: Iterable[onnx.OperatorSetIdProto]) -> bool:
    return any(entry.domain == OP_DOMAIN for entry in entries)


def _import_in_functions(edit: Edit) -> None:
    changed: dict[str, tuple[str, ...]] = {}
    for function in edit.model.functions:
        scope = Scope("", function.node, None, function, None, {})
        if _imports(function.opset_import) or not _calls_jump(scope):
            continue
        if function_key(function) not in edit.undo.functions_added:
            changed[function_key(function)] = tuple(pack(item) for item in function.opset_import)
            edit.changes.append(f"opset import {OP_DOMAIN} added to function {function_key(function)}")
        function.opset_import.append(custom_lowering.opset_import())
    edit.undo = replace(edit.undo, function_opset_import=changed)


def _calls_jump(scope: Scope) -> bool:
    add_children(scope, {})
    return any(node.domain == OP_DOMAIN and node.op_type == OP_TYPE for inner in walk(scope) for node in inner.nodes)
