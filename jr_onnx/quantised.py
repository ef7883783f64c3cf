"""The provenance of a retrofit that was quantised after the rewrite: what was recorded, and what the graph is now.

    z -> J -> y        becomes        z -> QuantizeLinear -> DequantizeLinear -> J -> y

Quantisers (such as onnxruntime.quantization) carry the metadata along. They leave J alone, which is not an operator
that they know, but put their pairs in front of it, add operator sets and may raise the IR version. The site then is
the same J of the dequantised value, and the original is the quantised network with ReLU there. `brought_up_to_date`
says so, from the graph. It follows nothing but such a pair, and only where the jump is one node: a site that reads
anything else stays as it is recorded, and a comparison of the graph with the record finds it.

The functions take any ModelProto-like object; this module imports no onnx.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jr_onnx.semantics import OP_DOMAIN, OP_TYPE

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from jr_onnx.provenance import Provenance, SiteRecord, Undo

QUANTISERS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    }
)  # fmt: skip
"""Operators that mark a network as quantised, of the standard domain and of com.microsoft."""

_CUSTOM_IR = 8
_JUMPS = {"thresholded": "ThresholdedRelu", "custom": OP_TYPE}


def is_quantised(model: ModelProto) -> bool:
    """Tell whether the main graph of a model holds an operator of a quantised network."""
    return any(node.op_type in QUANTISERS for node in model.graph.node)


def brought_up_to_date(model: ModelProto, record: Provenance) -> Provenance:
    """Return the provenance updated to a quantised graph; the same object where nothing was quantised.

    Args:
        model: The retrofit.
        record: The provenance in its metadata.
    """
    if not record.sites or not is_quantised(model):
        return record
    makers = {name: node for node in model.graph.node for name in node.output}
    sites = tuple(_site(site, makers) for site in record.sites)
    undo = _undo(model, record)
    if sites == record.sites and undo == record.undo:
        return record
    return replace(record, sites=sites, undo=undo)


def _site(site: SiteRecord, makers: dict[str, NodeProto]) -> SiteRecord:
    jump = makers.get(site.output)
    if site.scope or site.nodes != 1 or jump is None or jump.op_type != _JUMPS.get(site.lowering):
        return site
    original = type(jump)()
    try:
        original.ParseFromString(base64.b64decode(site.original, validate=True))
    except Exception:  # noqa: BLE001 - binascii and protobuf have no common base; `undo` says what is damaged
        return site
    if not jump.input or jump.input[0] in original.input:
        return site
    before = _in_front_of_quantiser(str(jump.input[0]), makers)
    if before is None or before not in original.input:
        return site
    position = list(original.input).index(before)
    original.input[position] = jump.input[0]
    return replace(site, original=_packed(original))


def _in_front_of_quantiser(name: str, makers: dict[str, NodeProto]) -> str | None:
    """Return what a value was before QuantizeLinear and DequantizeLinear; None where it does not come from such."""
    for wanted in ("DequantizeLinear", "QuantizeLinear"):
        node = makers.get(name)
        if node is None or node.op_type != wanted or not node.input:
            return None
        name = str(node.input[0])
    return name


def _undo(model: ModelProto, record: Provenance) -> Undo:
    """Return what undoes the rewrite, with the operator sets and the IR version that the quantiser left."""
    recorded = record.undo
    known = set(recorded.opset_import)
    custom = any(site.lowering == "custom" for site in record.sites)
    added = {OP_DOMAIN} if custom else set()
    imports = tuple(_packed(entry) for entry in model.opset_import if entry.domain not in added)
    wanted_ir = max(recorded.ir_version, _CUSTOM_IR) if custom else recorded.ir_version
    if set(imports) != known:
        recorded = replace(recorded, opset_import=imports)
    if model.ir_version != wanted_ir:
        recorded = replace(recorded, ir_version=int(model.ir_version))
    return recorded


def _packed(message: Any) -> str:
    """Do what `modelfile.messages.pack` does, which needs protobuf."""
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode("ascii")
