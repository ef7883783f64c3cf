"""Bring a kappa that is known only at run time into model-local functions: clone them with one more input.

    f(x) with a site inside, called as f(a)  ->  f stays as it is; f_jr(x, jr_kappa), called as f_jr(a, kappa)

Functions that call an affected one are affected too. Function bodies see no outer names, so there is no other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from jr_onnx.rewrite.protos import pack
from jr_onnx.rewrite.scopes import Scope, add_children, function_key, top_scopes, walk

_SUFFIX = "_jr"
_INPUT = "jr_kappa"


@dataclass(frozen=True)
class Clones:
    """What cloning did.

    Attributes:
        paths: Scope path of a clone's body -> scope path of the original's body.
        inputs: Scope path of a clone's body -> name of its kappa input.
        added: Keys of the clones.
        calls: Scope path, index and original proto of every changed call outside the clones.
    """

    paths: dict[str, str]
    inputs: dict[str, str]
    added: tuple[str, ...]
    calls: tuple[tuple[str, int, str], ...]


def clone_functions(model: onnx.ModelProto, holding_sites: set[str], kappa_name: str) -> Clones:
    """Clone the functions that hold sites, and those that call them, and redirect the calls.

    Args:
        model: Edited in place; the original functions stay.
        holding_sites: Keys of the functions with sites in them.
        kappa_name: Name of the scalar in the main graph.
    """
    tops = top_scopes(model)
    affected = _closure(tops, holding_sites)
    if not affected:
        return Clones({}, {}, (), ())
    existing = {function_key(function) for function in model.functions}
    renamed: dict[str, onnx.FunctionProto] = {}
    inputs: dict[str, str] = {}
    for function in [item for item in model.functions if function_key(item) in affected]:
        clone = model.functions.add()
        clone.CopyFrom(function)
        clone.name = _free_name(function, existing)
        existing.add(function_key(clone))
        clone.input.append(_free_input(clone))
        renamed[function_key(function)] = clone
        inputs[f"fn:{function_key(clone)}"] = clone.input[-1]
    calls: list[tuple[str, int, str]] = []
    clone_keys = {function_key(clone) for clone in renamed.values()}
    for top in top_scopes(model):
        inside_clone = top.function is not None and function_key(top.function) in clone_keys
        if top.function is not None and not inside_clone:
            continue
        name = inputs[top.path] if inside_clone else kappa_name
        for scope in walk(top):
            changed = _redirect(scope, renamed, name)
            calls.extend(() if inside_clone else changed)
    paths = {f"fn:{function_key(clone)}": f"fn:{key}" for key, clone in renamed.items()}
    return Clones(paths, inputs, tuple(sorted(clone_keys)), tuple(calls))


def original_path(path: str, clones: Mapping[str, str]) -> str:
    """Return the scope path in the original function for one in a clone, and any other path as it is."""
    for clone, original in clones.items():
        if path == clone or path.startswith(clone + "/"):
            return original + path.removeprefix(clone)
    return path


def _closure(tops: list[Scope], holding: set[str]) -> set[str]:
    affected = set(holding)
    while True:
        before = len(affected)
        for top in tops:
            if top.function is None:
                continue
            if any(function_key(node) in affected for scope in walk(top) for node in scope.nodes):
                affected.add(function_key(top.function))
        if len(affected) == before:
            return affected


def _redirect(scope: Scope, renamed: dict[str, onnx.FunctionProto], kappa_name: str) -> list[tuple[str, int, str]]:
    changed = []
    for index, node in enumerate(scope.nodes):
        clone = renamed.get(function_key(node))
        if clone is None:
            continue
        changed.append((scope.path, index, pack(node)))
        node.op_type = clone.name
        node.input.extend([""] * (len(clone.input) - 1 - len(node.input)))
        node.input.append(kappa_name)
    return changed


def _free_name(function: onnx.FunctionProto, existing: set[str]) -> str:
    candidate = onnx.FunctionProto()
    candidate.CopyFrom(function)
    candidate.name = function.name + _SUFFIX
    count = 1
    while function_key(candidate) in existing:
        count += 1
        candidate.name = f"{function.name}{_SUFFIX}{count}"
    return str(candidate.name)


def _free_input(function: onnx.FunctionProto) -> str:
    body = Scope("", function.node, None, function, None, {})
    add_children(body, set())
    taken = set(function.input)
    for scope in walk(body):
        taken.update(scope.defined_names())
    name, count = _INPUT, 0
    while name in taken:
        count += 1
        name = f"{_INPUT}_{count}"
    return name
