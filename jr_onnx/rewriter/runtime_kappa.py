"""Where a kappa that is known only at run time comes from, and how it gets to the sites.

    --kappa-input k, --random         an initializer `k` that is also a graph input
    --random-source op                jr_onnx::DrawKappa in front of the graph
    --random-source graph             RandomUniform and Squeeze in front of the graph, or beside every site

Functions that hold sites are cloned with one more input, because their bodies see no outer names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
from onnx import helper

from jr_onnx.errors import KappaError, RefusalError
from jr_onnx.kappa import DEFAULT_INPUT_NAME
from jr_onnx.modelfile.messages import pack
from jr_onnx.rewriter.edit import DEFAULTS_SINCE_IR, Edit
from jr_onnx.rewriter.functions import clone_functions
from jr_onnx.rewriter.lowering import custom as custom_lowering
from jr_onnx.rewriter.scopes import function_key, main_scope, replace_nodes
from jr_onnx.rewriter.sites import LocatedSite, locate
from jr_onnx.semantics import round_kappa


def bring_runtime_kappa(edit: Edit, chosen: Sequence[LocatedSite]) -> Sequence[LocatedSite]:
    """Add the source of a run-time kappa, clone functions; return the sites, located again."""
    model, plan = edit.model, edit.plan
    if plan.random is not None and plan.random.per == "site":
        if plan.random.source == "input":
            raise RefusalError(
                "one kappa input holds one draw, so it cannot serve one draw per site",
                hint="Use --random-source op or graph, or one draw per network",
            )
        return chosen
    if plan.input_name is None and plan.random is None:
        return chosen
    drawn = _draw(edit) if plan.random is not None and plan.random.source != "input" else []
    edit.runtime = str(drawn[-1].output[0]) if drawn else _add_input(edit)
    wanted = {(item.scope.path, item.site.output): item.site for item in chosen}
    holding = {function_key(item.scope.function) for item in chosen if item.scope.function is not None}
    edit.clones = clone_functions(model, holding, edit.runtime)
    edit.undo = replace(edit.undo, functions_added=edit.clones.added, calls=edit.clones.calls)
    for original, clone in edit.clones.names.items():
        edit.changes.append(f"function {original} cloned as {clone} with one more input for kappa")
    if drawn:  # after the calls were recorded, whose indices are those of the source
        replace_nodes(main_scope(model), [*drawn, *model.graph.node])
        edit.undo = replace(edit.undo, nodes_prepended=len(drawn))
        edit.changes.append(f"{drawn[0].op_type} in front of the graph draws kappa")
    # Nothing calls the originals of the clones any more, so that their sites are not found again.
    originals = edit.clones.paths
    places = (
        (item, (originals.get(item.scope.path, item.scope.path), item.site.output))
        for item in locate(model, edit.folder).located
    )
    return [replace(item, site=wanted[place]) for item, place in places if place in wanted]


def uniform_nodes(edit: Edit, result: str) -> list[onnx.NodeProto]:
    """Return the nodes that draw a scalar inside the graph; the last one yields it."""
    random = edit.plan.random
    if random is None:
        return []
    vector = edit.names.fresh(f"{result}_vector")
    scalar = edit.names.fresh(result)
    return [
        helper.make_node("RandomUniform", [], [vector], name=vector, low=random.low, high=random.high, shape=[1]),
        helper.make_node("Squeeze", [vector], [scalar], name=scalar),
    ]


def _draw(edit: Edit) -> list[onnx.NodeProto]:
    """Return the nodes that draw one kappa per run, for the front of the main graph; the last one yields it."""
    random = edit.plan.random
    if random is None:
        raise KappaError("a draw needs a random range")
    if random.source == "op":
        edit.raise_ir(custom_lowering.MINIMUM_IR, "the operator DrawKappa")
        edit.draws = True
        name = edit.names.fresh(DEFAULT_INPUT_NAME)
        return [custom_lowering.draw_node(name, random.low, random.high)]
    return uniform_nodes(edit, DEFAULT_INPUT_NAME)


def _add_input(edit: Edit) -> str:
    """Add kappa as an optional scalar input: an initializer that is also a graph input."""
    model, plan = edit.model, edit.plan
    edit.raise_ir(DEFAULTS_SINCE_IR, "a kappa input")
    wanted = plan.input_name or DEFAULT_INPUT_NAME
    name = edit.names.fresh(wanted)
    if name != wanted:
        raise KappaError(f"the model already has a value or node named {wanted!r}", hint="Choose another --kappa-input")
    default = plan.random.middle if plan.random is not None else plan.kappa
    value = round_kappa(default if default is not None else 0.0, "float32")
    model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]))
    edit.undo = replace(edit.undo, inputs_added=(name,), initializers_added=(name,))
    edit.changes.append(f"optional scalar input {name!r} added, default {value:g}")
    return name


def demote(edit: Edit) -> None:
    """Take initializers off the list of graph inputs (IR 3 demanded them there)."""
    model = edit.model
    names = {tensor.name for tensor in model.graph.initializer}
    names |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    removed = [(index, pack(value)) for index, value in enumerate(model.graph.input) if value.name in names]
    if not removed:
        return
    gone = {index for index, _ in removed}
    kept = [value for index, value in enumerate(model.graph.input) if index not in gone]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    edit.undo = replace(edit.undo, inputs_removed=tuple(removed))
    edit.changes.append(f"{len(removed)} initializer{'s' if len(removed) > 1 else ''} taken off the graph inputs")
    edit.raise_ir(DEFAULTS_SINCE_IR, "the demotion")
