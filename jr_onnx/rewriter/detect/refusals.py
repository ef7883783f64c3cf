"""ReLUs that cannot be rewritten, found so that they are named and never silently left.

- an attribute that selects relu inside a larger operator (RNN, GRU, LSTM, NhwcFusedConv, MoE, ...);
- an operator called Relu in a foreign domain;
- a quantised operator whose output range starts at zero: its ReLU was folded into the zero point;
- what `quantised` names.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto

from jr_onnx.opsets import normal_domain
from jr_onnx.rewriter.constants import NotConstant
from jr_onnx.rewriter.detect.base import Context, NotASite, Refused
from jr_onnx.rewriter.detect.quantised import refuse_quantised
from jr_onnx.rewriter.scopes import Scope, function_key
from jr_onnx.semantics import OP_DOMAIN

_SELECTS = {"relu", "relu6"}
_RECURRENT = {"RNN", "GRU", "LSTM"}
_KIN = {
    **dict.fromkeys(("HardSwish", "HardSigmoid"), "it is a gate of straight pieces, no ReLU"),
    **dict.fromkeys(
        ("Gelu", "Celu", "Mish", "Swish"), "it is smooth and lets negative values through, so it is not a ReLU"
    ),
    "Softplus": "it is smooth, so it is not a ReLU",
}
# Operator -> position of the zero point of its output.
_ZERO_POINT = {
    ("", "QLinearConv"): 7,
    ("", "QLinearMatMul"): 7,
    ("com.microsoft", "QLinearConv"): 7,
    ("com.microsoft", "QLinearAdd"): 7,
    ("com.microsoft", "QGemm"): 8,
}
_QUANTIZE = {("", "QuantizeLinear"), ("com.microsoft", "QuantizeLinear")}
# A quantiser behind one of these has negative values to cut off; behind an image, a softmax or a pool it has none.
_SIGNED_PRODUCERS = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Sum", "BatchNormalization", "InstanceNormalization",
    "FusedConv", "FusedGemm", "FusedMatMul",
}  # fmt: skip


def refuse(context: Context, scope: Scope, node: onnx.NodeProto) -> Refused | NotASite | None:
    """Return why a node that hides a ReLU cannot be rewritten, or None for any other node."""
    domain = normal_domain(node.domain)
    if domain == OP_DOMAIN:
        return NotASite("it is a JumpReLU already") if node.op_type == "JumpRelu" else None
    if domain == "" and node.op_type in _KIN:
        return NotASite(_KIN[str(node.op_type)])
    if domain != "" and str(node.op_type).lower() in _SELECTS and function_key(node) not in context.functions:
        return Refused(f"{domain}::{node.op_type} is not ONNX's Relu, and its definition is not in the model")
    return (
        _selected_by_attribute(node)
        or _folded_in_zero_point(context, scope, node, domain)
        or refuse_quantised(context, scope, node, domain)
    )


def _selected_by_attribute(node: onnx.NodeProto) -> Refused | None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.STRINGS or attribute.strings:
            values = list(attribute.strings)
        elif attribute.type == AttributeProto.STRING or attribute.s:
            values = [attribute.s]
        else:
            continue
        if not any(value.decode("utf-8", "replace").lower() in _SELECTS for value in values):
            continue
        if node.op_type in _RECURRENT:
            return Refused(
                f"the ReLU is an activation inside {node.op_type}, which has no jump; unroll the recurrence to reach it"
            )
        return Refused(
            f"the ReLU is selected by the attribute {attribute.name!r} of {node.op_type}, which has no JumpReLU form; "
            "export the model without this fusion"
        )
    return None


def _folded_in_zero_point(context: Context, scope: Scope, node: onnx.NodeProto, domain: str) -> Refused | None:
    key = (domain, str(node.op_type))
    if key in _ZERO_POINT:
        position = _ZERO_POINT[key]
        if len(node.input) <= position or not node.input[position]:
            return None
        starts_at_zero = _is_lowest(context, scope, node.input[position])
    elif key in _QUANTIZE:
        if node.output and context.is_activated_behind(scope, str(node.output[0])):
            return None  # the ReLU was kept behind the quantiser: it is the site
        found = context.constants.producer(scope, node.input[0]) if node.input else None
        producer = found[1] if found is not None else None
        if producer is None or producer.op_type not in _SIGNED_PRODUCERS or _is_activated(producer):
            return None
        has_zero_point = len(node.input) > 2 and node.input[2]
        starts_at_zero = _is_lowest(context, scope, node.input[2]) if has_zero_point else _unsigned_default(node)
    else:
        return None
    if not starts_at_zero:
        return None
    return Refused(
        f"the output range of {node.op_type} starts at zero: its ReLU was folded into the zero point; retrofit the "
        "float model and quantise that, or quantise it with QDQKeepRemovableActivations (docs/quantised.md)"
    )


def _is_activated(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "activation" and attribute.s for attribute in node.attribute)


def _is_lowest(context: Context, scope: Scope, name: str) -> bool:
    value = context.constants.value(scope, name)
    if isinstance(value, NotConstant) or value.dtype.kind not in "iu" or not value.size:
        return False
    lowest = int(np.iinfo(value.dtype.name).min)
    return bool(np.all(value == lowest))


def _unsigned_default(node: onnx.NodeProto) -> bool:
    """Without a zero point the output is uint8 from 0, unless the attribute output_dtype says otherwise."""
    for attribute in node.attribute:
        if attribute.name == "output_dtype":
            return attribute.i in (0, onnx.TensorProto.UINT8, onnx.TensorProto.UINT16)
    return True
