"""Detectors: one file per form in which models write a ReLU, and one for the ReLUs that cannot be rewritten."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from jr_onnx.rewrite.detect.base import Context, Match, NotASite, Refused
from jr_onnx.rewrite.detect.clip import detect_clip
from jr_onnx.rewrite.detect.fused import detect_fused_conv, detect_fused_gemm, detect_nchwc_conv
from jr_onnx.rewrite.detect.maximum import detect_max
from jr_onnx.rewrite.detect.refusals import refuse
from jr_onnx.rewrite.detect.relu import detect_relu
from jr_onnx.rewrite.scopes import Scope

Detector = Callable[[Context, Scope, onnx.NodeProto], Match | Refused | NotASite | None]

DETECTORS: dict[tuple[str, str], Detector] = {
    ("", "Relu"): detect_relu,
    ("", "Clip"): detect_clip,
    ("", "Max"): detect_max,
    ("com.microsoft", "FusedConv"): detect_fused_conv,
    ("com.microsoft", "FusedGemm"): detect_fused_gemm,
    ("com.microsoft.nchwc", "Conv"): detect_nchwc_conv,
}

__all__ = ["DETECTORS", "Context", "Detector", "Match", "NotASite", "Refused", "refuse"]
