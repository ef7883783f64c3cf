"""Turn chosen sites into JumpReLU, in place; everything that happens is recorded so that `undo` can take it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper

from jr_onnx.errors import KappaError, RefusalError
from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan
from jr_onnx.provenance import SiteRecord, Undo
from jr_onnx.rewrite.functions import Clones, clone_functions, original_path
from jr_onnx.rewrite.lowering import (
    LOWERINGS,
    Choice,
    Jump,
    LoweringWish,
    Names,
    Setting,
    Target,
    choose,
    constant,
)
from jr_onnx.rewrite.lowering import custom as custom_lowering
from jr_onnx.rewrite.protos import pack, replace_nodes
from jr_onnx.rewrite.scopes import Scope, add_children, function_key, main_scope, top_scopes, walk
from jr_onnx.rewrite.sites import LocatedSite, locate
from jr_onnx.semantics import DRAW_OP_TYPE, OP_DOMAIN, OP_TYPE, OP_VERSION, round_kappa

_CAP_ATTRIBUTE_SINCE = 12  # below, the function's body cannot hold a cap and a Clip stays behind J
_DEFAULTS_SINCE_IR = 4  # initializers need not be inputs, and those that are become optional


@dataclass(frozen=True)
class Wish:
    """How the caller wants J written."""

    plan: KappaPlan
    lowering: LoweringWish = "auto"
    target: Target = "portable"
    demote_initializer_inputs: bool = False


@dataclass
class Edit:
    """What was done to the model.

    Attributes:
        records: The rewritten sites, in graph order.
        choices: Site id -> its lowering.
        changes: Everything beside the sites that changed, in words.
        clones: Scope path of a cloned function's body -> scope path of the original's.
        undo: What takes it back.
    """

    records: list[SiteRecord] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    clones: dict[str, str] = field(default_factory=dict)
    undo: Undo | None = None


@dataclass
class _Work:
    """The state of one edit while it goes on."""

    model: onnx.ModelProto
    wish: Wish
    names: Names
    edit: Edit
    undo: Undo
    runtime: str | None = None
    clones: Clones = field(default_factory=lambda: Clones({}, {}, (), ()))
    jumps: list[Jump] = field(default_factory=list)


def apply(model: onnx.ModelProto, chosen: Sequence[LocatedSite], wish: Wish) -> Edit:
    """Rewrite the chosen sites of a model in place.

    Args:
        model: The model; `chosen` must have been located in it just now.
        chosen: The sites to rewrite.
        wish: kappa, lowering and target.

    Raises:
        RefusalError: A lowering is impossible, or the result would be slow or surprising.
        KappaError: kappa overflows the dtype of a site.
    """
    undo = Undo(model.ir_version, tuple(pack(item) for item in model.opset_import))
    work = _Work(model, wish, Names(top_scopes(model)), Edit(), undo)
    chosen = _prepare(work, chosen)
    plans = [_plan(work, item) for item in chosen]
    _write(work, plans)
    _finish(work)
    work.edit.undo = work.undo
    return work.edit


def _prepare(work: _Work, chosen: Sequence[LocatedSite]) -> Sequence[LocatedSite]:
    """Demote inputs, add the source of a run-time kappa, clone functions; return the sites, located again."""
    wish, model = work.wish, work.model
    if wish.demote_initializer_inputs:
        _demote(work)
    plan = wish.plan
    if plan.random is not None and plan.random.per == "site":
        if plan.random.source == "input":
            raise RefusalError(
                "one kappa input holds one draw, so it cannot serve one draw per site",
                hint="Use --random-source op or graph, or one draw per network",
            )
        return chosen
    if plan.input_name is None and plan.random is None:
        return chosen
    if plan.random is not None and plan.random.source != "input":
        work.runtime = _prepend_draw(work)
    else:
        work.runtime = _add_input(work)
    wanted = {(item.scope.path, item.site.output): item.site for item in chosen}
    holding = {function_key(item.scope.function) for item in chosen if item.scope.function is not None}
    work.clones = clone_functions(model, holding, work.runtime)
    work.undo = replace(work.undo, functions_added=work.clones.added, calls=work.clones.calls)
    work.edit.clones = work.clones.paths
    for path, original in work.clones.paths.items():
        work.edit.changes.append(f"function {original[3:]} cloned as {path[3:]} with one more input for kappa")
    # Nothing calls the originals of the clones any more, so that their sites are not found again.
    places = (
        (item, (original_path(item.scope.path, work.clones.paths), item.site.output)) for item in locate(model).located
    )
    return [replace(item, site=wanted[place]) for item, place in places if place in wanted]


@dataclass(frozen=True)
class _Planned:
    item: LocatedSite
    choice: Choice
    kappa: float


def _plan(work: _Work, item: LocatedSite) -> _Planned:
    site, model, plan = item.site, work.model, work.wish.plan
    wanted = plan.for_site(site.id)
    if wanted is None:
        raise KappaError(f"site {site.id} has no kappa in the plan")
    try:
        kappa = round_kappa(wanted, site.dtype)
    except KappaError as error:
        raise KappaError(f"site {site.id}: {error.message}", hint=error.hint) from None
    opset = item.scope.opset
    setting = Setting(
        site.dtype,
        opset if item.scope.function is None else min(opset, main_scope(model).opset or opset),
        model.ir_version,
        may_raise_ir=not _initializers_are_inputs(model) or model.ir_version >= _DEFAULTS_SINCE_IR,
        target=work.wish.target,
        variable=plan.random is not None or plan.input_name is not None,
        capped=site.cap is not None and opset >= _CAP_ATTRIBUTE_SINCE,
    )
    wish = work.wish.lowering
    if wish == "auto" and plan.random is not None and plan.random.source == "op":
        wish = "custom"
    return _Planned(item, choose(wish, setting, site.id), kappa)


def _write(work: _Work, plans: Sequence[_Planned]) -> None:
    """Replace the nodes of the planned sites, inner scopes first (an outer edit copies what lies inside)."""
    by_scope: dict[Scope, list[_Planned]] = {}
    for planned in plans:
        by_scope.setdefault(planned.item.scope, []).append(planned)
    records: dict[str, SiteRecord] = {}
    order = [scope for root in {plan.item.scope.root(): None for plan in plans} for scope in walk(root)]
    for scope in reversed(order):
        here = {planned.item.index: planned for planned in by_scope.get(scope, ())}
        if not here:
            continue
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(scope.nodes):
            if index not in here:
                nodes.append(node)
                continue
            planned = here[index]
            group = _group(work, planned)
            site = planned.item.site
            records[site.id] = SiteRecord(
                site.id, site.form, site.dtype, scope.path, site.output, planned.kappa, site.cap,
                planned.choice.lowering, len(group), pack(node),
            )  # fmt: skip
            nodes.extend(group)
        replace_nodes(scope, nodes)
    work.edit.records = [records[planned.item.site.id] for planned in plans]
    work.edit.choices = {planned.item.site.id: planned.choice for planned in plans}


def _group(work: _Work, planned: _Planned) -> list[onnx.NodeProto]:
    """Return the nodes that stand in the place of one site."""
    item, names = planned.item, work.names
    site, match = item.site, item.match
    base = site.output
    nodes: list[onnx.NodeProto] = []
    operand = match.operand
    for part in match.before:
        node = onnx.NodeProto()
        node.CopyFrom(part)
        result = names.fresh(f"{base}/jr_{part.op_type.lower()}")
        node.name, node.output[0] = result, result
        if nodes:
            node.input[0] = operand
        operand = result
        nodes.append(node)
    custom = planned.choice.lowering == "custom"
    cap_inside = custom and site.cap is not None and item.scope.opset >= _CAP_ATTRIBUTE_SINCE
    apart = match.after is not None and not cap_inside
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
        cap=site.cap if cap_inside else None,
    )
    if _draws_in_graph_per_site(work):
        drawn = _uniform_nodes(work, f"{base}/jr_drawn")
        nodes.extend(drawn)
        jump = replace(jump, runtime=drawn[-1].output[0])
    nodes.extend(LOWERINGS[planned.choice.lowering](jump, names))
    if custom:
        work.jumps.append(jump)
    if apart and match.after is not None:
        nodes.extend(_cap(work, item, jumped))
    return nodes


def _cap(work: _Work, item: LocatedSite, jumped: str) -> list[onnx.NodeProto]:
    """Return the Clip that bounds J from above, with a constant where the original had its cap in an attribute."""
    if item.match.after is None or item.site.cap is None:
        return []
    clip = onnx.NodeProto()
    clip.CopyFrom(item.match.after)
    clip.input[0] = jumped
    if len(clip.input) == 3 and not clip.input[2]:
        bound = constant(work.names, item.site.output, "cap", item.site.cap, item.site.dtype)
        clip.input[2] = bound.output[0]
        return [bound, clip]
    return [clip]


def _runtime_name(work: _Work, scope: Scope) -> str | None:
    return work.clones.inputs.get(scope.root().path, work.runtime) if work.runtime is not None else None


def _own_draw(work: _Work, *, custom: bool) -> tuple[float, float] | None:
    random = work.wish.plan.random
    if random is None or random.per != "site" or not custom or random.source != "op":
        return None
    return random.low, random.high


def _draws_in_graph_per_site(work: _Work) -> bool:
    random = work.wish.plan.random
    return random is not None and random.per == "site" and random.source == "graph"


def _uniform_nodes(work: _Work, result: str) -> list[onnx.NodeProto]:
    random = work.wish.plan.random
    if random is None:
        return []
    vector = work.names.fresh(f"{result}_vector")
    scalar = work.names.fresh(result)
    return [
        helper.make_node("RandomUniform", [], [vector], name=vector, low=random.low, high=random.high, shape=[1]),
        helper.make_node("Squeeze", [vector], [scalar], name=scalar),
    ]


def _prepend_draw(work: _Work) -> str:
    """Put the node that draws one kappa per run in front of the main graph."""
    random = work.wish.plan.random
    if random is None:
        raise KappaError("a draw needs a random range")
    if random.source == "op":
        name = work.names.fresh(DEFAULT_INPUT_NAME)
        nodes = [custom_lowering.draw_node(name, random.low, random.high)]
    else:
        nodes = _uniform_nodes(work, DEFAULT_INPUT_NAME)
        name = nodes[-1].output[0]
    replace_nodes(main_scope(work.model), [*nodes, *work.model.graph.node])
    work.undo = replace(work.undo, nodes_prepended=len(nodes))
    work.edit.changes.append(f"{nodes[0].op_type} in front of the graph draws kappa")
    return name


def _add_input(work: _Work) -> str:
    """Add kappa as an optional scalar input: an initializer that is also a graph input."""
    model, plan = work.model, work.wish.plan
    if model.ir_version < _DEFAULTS_SINCE_IR:
        if _initializers_are_inputs(model):
            raise RefusalError(
                f"a kappa input needs IR {_DEFAULTS_SINCE_IR}, and raising this model from IR {model.ir_version} "
                "would make its initializers, which are also graph inputs, overridable (and slow)",
                hint="Add --demote-initializer-inputs to take them off the inputs",
            )
        _raise_ir(work, _DEFAULTS_SINCE_IR)
    wanted = plan.input_name or DEFAULT_INPUT_NAME
    name = work.names.fresh(wanted)
    if name != wanted:
        raise KappaError(f"the model already has a value or node named {wanted!r}", hint="Choose another --kappa-input")
    default = plan.random.middle if plan.random is not None else plan.kappa
    value = round_kappa(default if default is not None else 0.0, "float32")
    model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]))
    work.undo = replace(work.undo, inputs_added=(name,), initializers_added=(name,))
    work.edit.changes.append(f"optional scalar input {name!r} added, default {value:g}")
    return name


def _demote(work: _Work) -> None:
    """Take initializers off the list of graph inputs (IR 3 demanded them there)."""
    model = work.model
    names = {tensor.name for tensor in model.graph.initializer}
    names |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    removed = [(index, pack(value)) for index, value in enumerate(model.graph.input) if value.name in names]
    if not removed:
        return
    for index, _ in reversed(removed):
        del model.graph.input[index]
    work.undo = replace(work.undo, inputs_removed=tuple(removed))
    work.edit.changes.append(f"{len(removed)} initializers taken off the graph inputs")
    _raise_ir(work, _DEFAULTS_SINCE_IR)


def _initializers_are_inputs(model: onnx.ModelProto) -> bool:
    inputs = {value.name for value in model.graph.input}
    return any(tensor.name in inputs for tensor in model.graph.initializer)


def _raise_ir(work: _Work, version: int) -> None:
    if work.model.ir_version < version:
        work.edit.changes.append(f"IR version {work.model.ir_version} raised to {version}")
        work.model.ir_version = version


def _finish(work: _Work) -> None:
    """Add what custom nodes need: the functions, the imports, the IR version."""
    drawing = any(node.domain == OP_DOMAIN and node.op_type == DRAW_OP_TYPE for node in work.model.graph.node)
    if not work.jumps and not drawing:
        return
    model = work.model
    _raise_ir(work, custom_lowering.MINIMUM_IR)
    opset = main_scope(model).opset
    try:
        functions = [custom_lowering.jump_function(custom_lowering.Needs.of(work.jumps, work.wish.target), opset)]
    except ValueError as error:
        raise RefusalError(str(error), hint="Use --lowering where, or convert the model (--opset 15)") from None
    if drawing:
        functions.append(custom_lowering.draw_function(opset))
    taken = {function_key(function) for function in model.functions}
    for function in functions:
        if function_key(function) in taken:
            raise RefusalError(
                f"the model already has a function {function_key(function)}, which this rewrite would add"
            )
    model.functions.extend(functions)
    added = tuple(function_key(function) for function in functions)
    work.undo = replace(work.undo, functions_added=(*work.undo.functions_added, *added))
    work.edit.changes.append(f"function {', '.join(added)} added")
    model.opset_import.append(custom_lowering.opset_import())
    work.edit.changes.append(f"opset import {OP_DOMAIN} {OP_VERSION} added")
    _import_in_functions(work)


def _import_in_functions(work: _Work) -> None:
    changed: dict[str, tuple[str, ...]] = {}
    for function in work.model.functions:
        scope = Scope("", function.node, None, function, None, {})
        if function.domain == OP_DOMAIN or not _calls_jump(scope):
            continue
        if function_key(function) not in work.undo.functions_added:
            changed[function_key(function)] = tuple(pack(item) for item in function.opset_import)
            work.edit.changes.append(f"opset import {OP_DOMAIN} added to function {function_key(function)}")
        function.opset_import.append(custom_lowering.opset_import())
    work.undo = replace(work.undo, function_opset_import=changed)


def _calls_jump(scope: Scope) -> bool:
    add_children(scope, set())
    return any(node.domain == OP_DOMAIN and node.op_type == OP_TYPE for inner in walk(scope) for node in inner.nodes)
