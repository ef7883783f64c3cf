"""Convert a model to another opset before it is rewritten, and list what that changed.

onnx.version_converter does the work; what it loses is brought past it. Model-local functions, which it drops, are
inlined first (onnx.inliner); operators it does not know travel in a domain of their own (`legacy`); large weights stay
tokens and external data stay references, so that a model of any size is converted in little memory.

A conversion is believed only when it is proved: `Prover` compares source and result by running both, which needs a
runtime, and lies where one may be imported (`jr_onnx.verifier.prove_conversion`). The caller passes it in.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import inliner, version_converter

from jr_onnx.errors import ModelError, RefusalError, blaming
from jr_onnx.modelfile import ModelFile, content_digest, copied
from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter import legacy
from jr_onnx.rewriter.differences import conversion_summary
from jr_onnx.rewriter.expansion import expanded_size
from jr_onnx.rewriter.scopes import Scope, all_nodes, function_key, function_scopes, main_scope, top_scopes, walk

Prover = Callable[[ModelFile, ModelFile], str]
"""Takes a model and its conversion; says how it proved that both compute the same, or raises RefusalError."""

LOWEST = 7
_HIDDEN_SINCE_IR = 4  # initializers need not be inputs
_IMPORTS_SINCE_IR = 3  # before, a model could not say which operator set it uses


def convert(source: ModelFile, opset: int) -> tuple[ModelFile, list[str]]:
    """Return the model at another opset, and lines that say what the conversion changed.

    Raises:
        ModelError: The opset does not exist, or the converter does not know how.
        RefusalError: A function or an operator stands in the way.
    """
    newest = onnx.defs.onnx_opset_version()
    if not LOWEST <= opset <= newest:
        raise ModelError(f"--opset is {opset}, expected {LOWEST} to {newest}")
    before = main_scope(source.proto).opset
    if before == opset:
        return source, []
    work = copied(source.proto)
    work, lines = _without_functions(work)
    inlined = copied(work)
    carried = legacy.mask(work)
    if _has_hidden_initializers(work):
        work.ir_version = max(work.ir_version, _HIDDEN_SINCE_IR)
    what = f"onnx cannot convert this model from opset {before} to {opset}"
    hint = (
        "Export the model again, at a newer opset"
        if opset > before
        else f"onnx can rarely lower an opset: leave --opset away, or export the model again at opset {opset}"
    )
    with blaming(what, ModelError, hint=hint):
        converted = version_converter.convert_version(work, opset)
    kept = legacy.unmask(converted)
    legacy.keep_resizing(converted, before)
    if carried:
        lines.append(f"carried past onnx's converter: {', '.join(carried)}")
    if kept:
        lines.append(f"operators of no operator set were kept as they are: {', '.join(kept)}")
    _bring_back(inlined, converted)
    converted.ir_version = max(converted.ir_version, _IMPORTS_SINCE_IR)
    digest, length = content_digest(converted, source.payloads)
    result = ModelFile(source.path, converted, source.payloads, digest, length)
    return result, [*conversion_summary(inlined, converted), *lines]


def _without_functions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Inline the model's functions, which onnx's converter drops.

    Raises:
        RefusalError: A function uses another operator set, in which its operators mean something else.
    """
    if not model.functions:
        return model, []
    keys = [function_key(function) for function in model.functions]
    target = main_scope(model).opset
    for scope in function_scopes(model):
        _adopt_opset(scope, target)
    domains = {normal_domain(function.domain) for function in model.functions}
    expanded_size(top_scopes(model))  # replacing every call by its body takes time and memory that nothing else bounds
    what = "--opset needs this model's functions inlined, and onnx cannot"
    with blaming(what, RefusalError, hint="Rewrite it without --opset, or export it again"):
        inlined = inliner.inline_local_functions(model)
    left = {function_key(node) for node in all_nodes(inlined)} & set(keys)
    if left or inlined.functions:
        name = min(left, default=keys[0])
        raise RefusalError(
            f"--opset needs this model's functions inlined, and onnx leaves the function {name}",
            hint="Rewrite it without --opset, or export it again",
        )
    used = {normal_domain(node.domain) for node in all_nodes(inlined)}
    for index in reversed(range(len(inlined.opset_import))):
        domain = normal_domain(inlined.opset_import[index].domain)
        if domain and domain in domains and domain not in used:
            del inlined.opset_import[index]
    shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
    return inlined, [f"functions inlined, because onnx's converter drops them: {shown}"]


def _adopt_opset(top: Scope, target: int) -> None:
    """Let a function import the model's own operator set, where its operators are called alike in both.

    Whether they also mean the same, the proof of the whole conversion finds out.
    """
    function = top.function
    if function is None or top.opset in (0, target):
        return
    for scope in walk(top):
        for node in scope.nodes:
            op_type = str(node.op_type)
            if normal_domain(node.domain) or _signature(op_type, top.opset) == _signature(op_type, target):
                continue
            raise RefusalError(
                f"--opset does not go with the function {function_key(function)}: it imports operator set {top.opset}, "
                f"the model {target}, and {node.op_type} differs between the two",
                hint="Rewrite the model without --opset, or export it again",
            )
    for entry in function.opset_import:
        if not normal_domain(entry.domain):
            entry.version = target


def _signature(op_type: str, opset: int) -> object:
    """Return what an operator takes: its inputs, and its attributes with their defaults; None for an unknown one."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    attributes = {name: item.default_value.SerializeToString() for name, item in schema.attributes.items()}
    return [(item.name, item.option) for item in schema.inputs], attributes


def _has_hidden_initializers(model: onnx.ModelProto) -> bool:
    """Tell whether some weights are not inputs, which IR 3 forbids and runtimes allow; onnx's converter fails there."""
    inputs = {value.name for value in model.graph.input}
    return any(tensor.name not in inputs for tensor in model.graph.initializer)


def _bring_back(source: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Copy what onnx's converter leaves out and what no opset changes: annotations and metadata."""
    for name in ("metadata_props", "training_info"):
        if not len(getattr(converted, name)):
            getattr(converted, name).extend(getattr(source, name))
    for name in ("quantization_annotation", "metadata_props"):
        if not len(getattr(converted.graph, name)):
            getattr(converted.graph, name).extend(getattr(source.graph, name))
    if not converted.graph.doc_string:
        converted.graph.doc_string = source.graph.doc_string
