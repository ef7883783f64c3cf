"""Detectors: one file per form in which models write a ReLU, and one for the ReLUs that cannot be rewritten."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from jr_onnx.rewriter.detect.arithmetic import detect_mean, detect_neg, detect_scaled, detect_sub
from jr_onnx.rewriter.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewriter.detect.clip import detect_clip
from jr_onnx.rewriter.detect.comparison import detect_mask, detect_where
from jr_onnx.rewriter.detect.fused import detect_fused_conv, detect_fused_gemm, detect_nchwc_conv
from jr_onnx.rewriter.detect.maximum import detect_max
from jr_onnx.rewriter.detect.refusals import refuse
from jr_onnx.rewriter.detect.relu import detect_relu
from jr_onnx.rewriter.detect.slope import detect_prelu, detect_slope, detect_thresholded
from jr_onnx.rewriter.scopes import Scope

Detector = Callable[[Context, Scope, onnx.NodeProto], Match | Refused | NotASite | None]

DETECTORS: dict[tuple[str, str], Detector] = {
    ("", "Relu"): detect_relu,
    ("", "Clip"): detect_clip,
    ("", "Max"): detect_max,
    ("", "LeakyRelu"): detect_slope,
    ("", "Elu"): detect_slope,
    ("", "Selu"): detect_slope,
    ("", "PRelu"): detect_prelu,
    ("", "ThresholdedRelu"): detect_thresholded,
    ("com.microsoft", "FusedConv"): detect_fused_conv,
    ("com.microsoft", "FusedGemm"): detect_fused_gemm,
    ("com.microsoft.nchwc", "Conv"): detect_nchwc_conv,
}


def _detect_product(context: Context, scope: Scope, node: onnx.NodeProto) -> Match | Refused | NotASite | None:
    return detect_mask(context, scope, node) or detect_scaled(context, scope, node)


PATTERNS: dict[tuple[str, str], Detector] = {
    ("", "Where"): detect_where,
    ("", "Mul"): _detect_product,
    ("", "Div"): detect_scaled,
    ("", "Neg"): detect_neg,
    ("", "Sub"): detect_sub,
    ("", "Mean"): detect_mean,
}
"""The same for operators that are a ReLU only together with others before them."""

__all__ = ["DETECTORS", "PATTERNS", "Context", "Detector", "Match", "NotASite", "Refused", "refuse"]
