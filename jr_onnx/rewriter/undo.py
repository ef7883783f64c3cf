"""Take a rewrite back, from what its provenance records: the original nodes, calls, inputs, functions and imports."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

import onnx

from jr_onnx import provenance
from jr_onnx.errors import ModelError
from jr_onnx.modelfile.messages import unpack
from jr_onnx.provenance import Provenance, SiteRecord
from jr_onnx.rewriter.scopes import Scope, function_key, replace_nodes, scopes_by_path, substitute

_FROM_ORIGINAL = "Rewrite the original model again"


def undo(model: onnx.ModelProto, record: Provenance | None = None) -> Provenance:
    """Put the original back, in place, and return the provenance that was there.

    Args:
        model: The retrofit.
        record: Its provenance, where it was read already.

    Raises:
        ModelError: The model is not a retrofit, was optimised, or was changed so that a site is not where it was.
    """
    record = record or provenance.read(model)
    if record is None and provenance.is_hardened(model):
        raise ModelError(
            "jr-onnx harden trained the weights of the model, and the weights before are not in it",
            hint="The original file is needed; its name and digest stand in the metadata entry jr_onnx.hardened",
        )
    if record is None:
        raise ModelError(
            "the model carries no jr-onnx provenance, so there is nothing to restore",
            hint="Only files written by jr-onnx can be restored; other tools may have dropped the metadata",
        )
    if any(entry.key == provenance.OPTIMISED_KEY for entry in model.metadata_props):
        raise ModelError(
            "the model was optimised for one host, which merged its sites with their neighbours permanently",
            hint="Use the retrofit that jr-onnx optimize was given",
        )
    _restore_sites(model, record.sites)
    _insert_removed(model, record.undo.nodes_removed)
    _remove_functions(model, set(record.undo.functions_added))
    _restore_graph(model, record)
    provenance.remove(model)
    return record


def _remove_functions(model: onnx.ModelProto, added: set[str]) -> None:
    gone = sorted(added - {function_key(function) for function in model.functions})
    if gone:
        raise ModelError(f"the function {gone[0]!r}, which the rewrite added, is gone", hint=_FROM_ORIGINAL)
    for index in reversed(range(len(model.functions))):
        if function_key(model.functions[index]) in added:
            del model.functions[index]


def _restore_sites(model: onnx.ModelProto, sites: tuple[SiteRecord, ...]) -> None:
    scopes = scopes_by_path(model)
    makers = {path: {name: index for index, node in enumerate(scope.nodes) for name in node.output}
              for path, scope in scopes.items()}  # fmt: skip
    originals: dict[Scope, dict[int, list[onnx.NodeProto]]] = {}
    for site in sites:
        if site.scope not in scopes:
            raise ModelError(
                f"site {site.id}: the model no longer has the scope {site.scope!r}",
                hint=f"The file was changed after the rewrite. {_FROM_ORIGINAL}",
            )
        here = originals.setdefault(scopes[site.scope], {})
        end = makers[site.scope].get(site.output, -1)
        place = range(end - site.nodes + 1, end + 1)
        if end < 0 or not 0 <= place.start <= end or any(index in here for index in place):
            raise ModelError(
                f"site {site.id} is not where the rewrite left it (tensor {site.output!r})",
                hint=f"The file was changed after the rewrite. {_FROM_ORIGINAL}",
            )
        here.update({index: [] for index in place})
        here[end] = [unpack(onnx.NodeProto, site.original)]
    substitute(originals, lambda _, nodes: nodes)


def _insert_removed(model: onnx.ModelProto, removed: tuple[tuple[str, int, str], ...]) -> None:
    """Put nodes back to where they stood in the source, in which all others have their places again."""
    if not removed:
        return
    scopes = scopes_by_path(model)
    of_scope: dict[str, list[tuple[int, str]]] = {}
    for path, index, packed in removed:
        of_scope.setdefault(path, []).append((index, packed))
    for path, places in of_scope.items():
        if path not in scopes:
            raise ModelError(f"the model no longer has the scope {path!r}", hint=_FROM_ORIGINAL)
        nodes = list(scopes[path].nodes)
        for index, packed in sorted(places):
            if not 0 <= index <= len(nodes):
                raise ModelError(f"node {index} of scope {path!r} has no place in the graph", hint=_FROM_ORIGINAL)
            nodes.insert(index, unpack(onnx.NodeProto, packed))
        replace_nodes(scopes[path], nodes)


def _restore_graph(model: onnx.ModelProto, record: Provenance) -> None:
    graph, steps = model.graph, record.undo
    if not 0 <= steps.nodes_prepended <= len(graph.node):
        raise ModelError(f"{steps.nodes_prepended} nodes should stand in front of the graph, found {len(graph.node)}")
    del graph.node[: steps.nodes_prepended]
    for name in steps.initializers_added:
        _remove_named(graph.initializer, name)
    for name in steps.inputs_added:
        _remove_named(graph.input, name)
    if steps.inputs_removed:
        inputs = list(graph.input)
        for index, packed in steps.inputs_removed:
            inputs.insert(index, unpack(onnx.ValueInfoProto, packed))
        del graph.input[:]
        graph.input.extend(inputs)
    _restore_calls(model, steps.calls)
    del model.opset_import[:]
    model.opset_import.extend(unpack(onnx.OperatorSetIdProto, packed) for packed in steps.opset_import)
    for function in model.functions:
        imports = steps.function_opset_import.get(function_key(function))
        if imports is not None:
            del function.opset_import[:]
            function.opset_import.extend(unpack(onnx.OperatorSetIdProto, packed) for packed in imports)
    if not 0 <= steps.ir_version < 1 << 63:
        raise ModelError(
            f"the provenance gives the IR version {steps.ir_version}, which does not exist", hint=_FROM_ORIGINAL
        )
    model.ir_version = steps.ir_version
    if not steps.has_ir_version:
        model.ClearField("ir_version")


def _restore_calls(model: onnx.ModelProto, calls: tuple[tuple[str, int, str], ...]) -> None:
    if not calls:
        return
    scopes = scopes_by_path(model)
    originals: dict[Scope, dict[int, onnx.NodeProto]] = {}
    for path, index, packed in calls:
        if path not in scopes or not 0 <= index < len(scopes[path].nodes):
            raise ModelError(f"call {index} in scope {path!r} is not where the rewrite left it")
        originals.setdefault(scopes[path], {})[index] = unpack(onnx.NodeProto, packed)
    substitute(originals, lambda _, call: [call])


def _remove_named(items: MutableSequence[Any], name: str) -> None:
    for index, item in enumerate(items):
        if item.name == name:
            del items[index]
            return
    raise ModelError(f"{name!r}, which the rewrite added, is gone", hint=_FROM_ORIGINAL)
