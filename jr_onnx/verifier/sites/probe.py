"""A tiny model around one site's nodes, exactly as they are in the file, so that any value can be put in front of them.

    main graph:  z -> [jump nodes] -> y
    function:    z -> probe(z) -> y, the nodes in the body of a function with the imports of the site's own function
    branch:      z -> If(take) { [jump nodes] } else { Identity } -> y, for the bodies of If, Loop and Scan

IR version, opset imports and the functions of domain jr_onnx are the file's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import onnx
from onnx import TensorProto, helper

from jr_onnx.element_types import NUMBERS
from jr_onnx.modelfile import copied
from jr_onnx.semantics import OP_DOMAIN, kappa_dims
from jr_onnx.verifier.sites.groups import SiteGroup

Kind = Literal["main", "function", "branch"]
OPERAND, RESULT, RUNTIME = "jr_probe_z", "jr_probe_y", "jr_probe_kappa"
_TAKE = "jr_probe_take"
_DOMAIN = "jr_probe"


def kind_of(group: SiteGroup) -> Kind:
    """Return what kind of scope a site stands in."""
    if group.scope.parent is not None:
        return "branch"
    return "function" if group.scope.function is not None else "main"


def probe_model(model: onnx.ModelProto, group: SiteGroup) -> onnx.ModelProto:
    """Return the tiny model of a site: inputs z and, for a run-time kappa, a float32 scalar; output y.

    z and y are of shape (N,), or (N, C, 1, ..., 1) for a kappa per channel.
    """
    element = NUMBERS[group.record.dtype]
    shape: list[str | int] = ["N", *kappa_dims(group.record.kappa, group.record.rank)]
    names = {group.operand: OPERAND, group.record.output: RESULT}
    if group.runtime is not None:
        names[group.runtime] = RUNTIME
    nodes = [_constant(name, tensor, names) for name, tensor in group.constants.items()]
    nodes.extend(renamed(node, names) for node in group.jump)
    inputs = [helper.make_tensor_value_info(OPERAND, element, shape)]
    if group.runtime is not None:
        inputs.append(helper.make_tensor_value_info(RUNTIME, TensorProto.FLOAT, []))
    outputs = [helper.make_tensor_value_info(RESULT, element, shape)]
    functions = [function for function in model.functions if function.domain == OP_DOMAIN]
    imports = list(model.opset_import)
    kind = kind_of(group)
    if kind == "branch":
        nodes = [_branch(nodes, element)]
        inputs.append(helper.make_tensor_value_info(_TAKE, TensorProto.BOOL, []))
    if group.scope.function is not None:
        body_imports = list(group.scope.function.opset_import)
        arguments = [value.name for value in inputs]
        functions.append(helper.make_function(_DOMAIN, "probe", arguments, [RESULT], nodes, body_imports))
        nodes = [helper.make_node("probe", arguments, [RESULT], domain=_DOMAIN)]
        imports.append(helper.make_opsetid(_DOMAIN, 1))
        known = {entry.domain for entry in imports}
        imports.extend(entry for entry in body_imports if entry.domain not in known)
    graph = helper.make_graph(nodes, "probe", inputs, outputs)
    probe = helper.make_model(graph, opset_imports=imports, functions=functions)
    probe.ir_version = model.ir_version
    return probe


def takes_branch(probe: onnx.ModelProto) -> str | None:
    """Return the name of the boolean input that has to be true for the site to be evaluated, if there is one."""
    return next((value.name for value in probe.graph.input if value.name == _TAKE), None)


def signature(probe: onnx.ModelProto) -> bytes:
    """Return bytes that are equal for sites whose nodes differ in names alone."""
    canonical = copied(probe)
    names: dict[str, str] = {"": ""}
    _canonical_names(canonical.graph.node, names)
    for function in canonical.functions:
        if function.domain == _DOMAIN:
            inner = {name: name for name in function.input} | {"": "", RESULT: RESULT}
            _canonical_names(function.node, inner)
    return bytes(canonical.SerializeToString(deterministic=True))


def _canonical_names(nodes: Iterable[onnx.NodeProto], names: dict[str, str]) -> None:
    for node in nodes:
        node.name, node.doc_string = "", ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _canonical_names(attribute.g.node, names)
            if attribute.HasField("t"):
                attribute.t.name = ""
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                keep = name in (OPERAND, RESULT, RUNTIME, _TAKE)
                field[index] = name if keep else names.setdefault(name, f"n{len(names)}")


def renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """Return a copy of a node in which values have other names; those that are not among `names` keep theirs."""
    copy = copied(node)
    for field in (copy.input, copy.output):
        for index, name in enumerate(field):
            field[index] = names.get(name, name)
    return copy


def _constant(name: str, tensor: onnx.TensorProto, names: dict[str, str]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [names.get(name, name)], value=tensor)


def _branch(nodes: list[onnx.NodeProto], element: int) -> onnx.NodeProto:
    result = [helper.make_tensor_value_info(RESULT, element, None)]
    other = [helper.make_tensor_value_info(f"{RESULT}_else", element, None)]
    identity = helper.make_node("Identity", [OPERAND], [f"{RESULT}_else"])
    inner = helper.make_graph(nodes, "then", [], result)
    outer = helper.make_graph([identity], "else", [], other)
    # The branch's own result needs another name than the If's: names are unique across nested scopes.
    for node in inner.node:
        for index, name in enumerate(node.output):
            if name == RESULT:
                node.output[index] = f"{RESULT}_then"
        for index, name in enumerate(node.input):
            if name == RESULT:
                node.input[index] = f"{RESULT}_then"
    inner.output[0].name = f"{RESULT}_then"
    return helper.make_node("If", [_TAKE], [RESULT], then_branch=inner, else_branch=outer)
