"""Activations that ONNX Runtime fused into a node come apart again: the plain operator, then the site.

    FusedConv(x, w[, b][, z]; activation=Relu)  ->  Conv(x, w[, b]) [-> Add(., z)] -> J
    FusedGemm(a, b[, c]; activation=Relu)       ->  Gemm(a, b[, c]) -> J
    nchwc.Conv(x, w[, b][, sum]; activation=Relu) -> nchwc.Conv(x, w[, b][, sum]) -> J
    activation=Clip with activation_params (0, cap) likewise, with the cap after J

Where Gemm does not exist in this form (without C below opset 11; below opset 7 ONNX Runtime has no kernel), FusedGemm
stays with LeakyRelu of slope 1 as its activation, which changes nothing. FusedConv and FusedGemm are operators of
domain com.microsoft. J keeps the zero padding of NCHWc channel blocks, because J(0) = 0. A node with an attribute
beyond the known ones is refused: it might change what the plain operator computes.
"""

from __future__ import annotations

import onnx
from onnx import helper

from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused, attributes_of
from jr_onnx.rewriter.scopes import Scope

_CONV = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}
_GEMM = {"alpha", "beta", "transA", "transB"}
_ACTIVATION = {"activation", "activation_params"}
_GEMM_ACTIVATION = {"activation", "activation_alpha", "activation_beta", "activation_gamma"}
_CLIP_WITH_INPUTS = 11
_GEMM_WITHOUT_C = 11
_GEMM_IN_RUNTIME = 7
_ADD_IN_RUNTIME = 7
_FUSED_CONV_Z = 3


def detect_fused_conv(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match com.microsoft FusedConv."""
    del context
    verdict = _activation(node, _CONV | _ACTIVATION)
    if not isinstance(verdict, tuple):
        return verdict
    if scope.opset == 0:
        return Refused("the plain Conv needs the standard operator set, which this model does not import")
    inputs = list(node.input)
    extra = inputs[_FUSED_CONV_Z] if len(inputs) > _FUSED_CONV_Z else ""
    conv = _plain(node, "Conv", "", inputs[:_FUSED_CONV_Z], _CONV)
    before = [conv]
    if extra:
        # Both have one shape; below opset 7 ONNX Runtime has no Add.
        before.append(helper.make_node("Add" if scope.opset >= _ADD_IN_RUNTIME else "Sum", ["", extra], [""]))
    return _match("fused_conv", scope, node, tuple(before), verdict)


def detect_fused_gemm(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match com.microsoft FusedGemm."""
    del context
    verdict = _activation(node, _GEMM | _GEMM_ACTIVATION)
    if not isinstance(verdict, tuple):
        return verdict
    if scope.opset == 0:
        return Refused("the plain Gemm needs the standard operator set, which this model does not import")
    without_c = len(node.input) <= 2 or not node.input[2]
    if scope.opset < _GEMM_IN_RUNTIME or (scope.opset < _GEMM_WITHOUT_C and without_c):
        plain = _plain(node, "FusedGemm", str(node.domain), list(node.input), _GEMM)
        plain.attribute.append(helper.make_attribute("activation", "LeakyRelu"))
        plain.attribute.append(helper.make_attribute("activation_alpha", 1.0))
    else:
        plain = _plain(node, "Gemm", "", list(node.input), _GEMM)
    return _match("fused_gemm", scope, node, (plain,), verdict)


def detect_nchwc_conv(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    """Match the blocked convolution of domain com.microsoft.nchwc."""
    del context
    verdict = _activation(node, _CONV | _ACTIVATION)
    if not isinstance(verdict, tuple):
        return verdict
    plain = _plain(node, "Conv", str(node.domain), list(node.input), _CONV)
    return _match("nchwc_conv", scope, node, (plain,), verdict)


def _activation(node: onnx.NodeProto, known: set[str]) -> tuple[float | None] | Refused | NotASite | None:
    """Return the cap of a ReLU activation in a tuple, None without an activation, or a verdict."""
    attributes = attributes_of(node)
    if "activation" not in attributes:
        return None
    if attributes["activation"].ref_attr_name:
        return Refused("its activation is an attribute of the function it stands in, so it is not constant")
    name = attributes["activation"].s.decode("utf-8", "replace")
    if name not in ("Relu", "Clip"):
        return NotASite(f"its fused activation is {name}, not Relu") if name else None
    cap: float | None = None
    if name == "Clip":
        params = list(attributes["activation_params"].floats) if "activation_params" in attributes else []
        if len(params) != 2:
            return Refused(f"its fused Clip has {len(params)} bounds, expected 2")
        if params[0] != 0:
            return NotASite(f"its fused Clip starts at {params[0]}, not at 0")
        cap = float(params[1])
        if not cap >= 0:
            return Refused(f"its fused Clip goes from 0 to {cap}, so it is not a ReLU with a cap")
    unknown = sorted(set(attributes) - known)
    if unknown:
        return Refused(
            f"{node.op_type} has the attribute {unknown[0]!r}, whose meaning for the plain operator is unknown"
        )
    return (cap,)


def _plain(node: onnx.NodeProto, op_type: str, domain: str, inputs: list[str], keep: set[str]) -> onnx.NodeProto:
    plain = onnx.NodeProto(op_type=op_type, domain=domain, input=inputs, output=[""])
    plain.attribute.extend(attribute for attribute in node.attribute if attribute.name in keep)
    while plain.input and not plain.input[-1]:
        del plain.input[-1]
    return plain


def _match(
    form: str, scope: Scope, node: onnx.NodeProto, before: tuple[onnx.NodeProto, ...], verdict: tuple[float | None]
) -> Match:
    (cap,) = verdict
    after = None
    if cap is not None and scope.opset >= _CLIP_WITH_INPUTS:
        # The lowering fills in the name of a constant for the upper bound.
        after = onnx.NodeProto(op_type="Clip", input=["", "", ""], output=[node.output[0]], name=node.name)
    elif cap is not None:
        after = helper.make_node("Clip", [""], [node.output[0]], name=node.name, max=cap)
    return Match(form, "", node.output[0], cap=cap, before=before, after=after)
