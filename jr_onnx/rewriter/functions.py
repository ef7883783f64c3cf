"""Bring a kappa that is known only at run time into model-local functions: clone them with one more input.

    f(x) with a site inside, called as f(a)  ->  f stays as it is; f_jr(x, jr_kappa), called as f_jr(a, kappa)

Functions that call an affected one are affected too. Function bodies see no outer names, so there is no other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from jr_onnx.modelfile.messages import pack
from jr_onnx.rewriter.scopes import Scope, add_children, function_key, top_scopes, walk

_SUFFIX = "_jr"
_INPUT = "jr_kappa"


@dataclass(frozen=True)
class Clones:
    """What cloning did.

    Attributes:
        paths: Path of every scope in a clone -> path of the same scope in the original.
        inputs: Path of the body of a clone -> name of its kappa input.
        added: Keys of the clones.
        calls: Scope path, index and original proto of every changed call outside the clones.
        names: Key of every original -> key of its clone.
    """

    paths: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    calls: tuple[tuple[str, int, str], ...] = ()
    names: dict[str, str] = field(default_factory=dict)


def clone_functions(model: onnx.ModelProto, holding_sites: set[str], kappa_name: str) -> Clones:
    """Clone the functions that hold sites, and those that call them, and redirect the calls.

    Args:
        model: Edited in place; the original functions stay.
        holding_sites: Keys of the functions with sites in them.
        kappa_name: Name of the scalar in the main graph.
    """
    affected = _closure(top_scopes(model), holding_sites)
    if not affected:
        return Clones()
    existing = {function_key(function) for function in model.functions}
    renamed: dict[str, onnx.FunctionProto] = {}
    for function in [item for item in model.functions if function_key(item) in affected]:
        clone = model.functions.add()
        clone.CopyFrom(function)
        clone.name = _free_name(function, existing)
        existing.add(function_key(clone))
        clone.input.append(_free_input(clone))
        renamed[function_key(function)] = clone
    tops = top_scopes(model)
    bodies = {function_key(top.function): top for top in tops if top.function is not None}
    pairs = [(bodies[key], bodies[function_key(clone)]) for key, clone in renamed.items()]
    paths = {clone.path: old.path for one, other in pairs for old, clone in zip(walk(one), walk(other), strict=True)}
    inputs = {other.path: str(renamed[function_key(one.function)].input[-1]) for one, other in pairs if one.function}
    calls: list[tuple[str, int, str]] = []
    for top in tops:
        inside_clone = top.path in inputs
        if top.function is not None and not inside_clone:
            continue
        name = inputs[top.path] if inside_clone else kappa_name
        for scope in walk(top):
            changed = _redirect(scope, renamed, name)
            calls.extend(() if inside_clone else changed)
    names = {key: function_key(clone) for key, clone in renamed.items()}
    return Clones(paths, inputs, tuple(sorted(names.values())), tuple(calls), names)


def _closure(tops: list[Scope], holding: set[str]) -> set[str]:
    """Return the keys of the functions that hold a site or call, at any distance, one that does."""
    callers: dict[str, set[str]] = {}
    for top in tops:
        if top.function is None:
            continue
        for scope in walk(top):
            for node in scope.nodes:
                callers.setdefault(function_key(node), set()).add(function_key(top.function))
    affected: set[str] = set()
    waiting = list(holding)
    while waiting:
        key = waiting.pop()
        if key not in affected:
            affected.add(key)
            waiting.extend(callers.get(key, ()))
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
    candidate = onnx.FunctionProto(domain=function.domain, overload=function.overload)
    candidate.name = function.name + _SUFFIX
    count = 1
    while function_key(candidate) in existing:
        count += 1
        candidate.name = f"{function.name}{_SUFFIX}{count}"
    return str(candidate.name)


def _free_input(function: onnx.FunctionProto) -> str:
    body = Scope("", function.node, None, function, None, {})
    add_children(body, {})
    taken = set(function.input)
    for scope in walk(body):
        taken.update(scope.defined_names())
    name, count = _INPUT, 0
    while name in taken:
        count += 1
        name = f"{_INPUT}_{count}"
    return name
