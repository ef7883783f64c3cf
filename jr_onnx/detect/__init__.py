"""Detect adversarial examples by the local intrinsic dimensionality of activations (paper, section 4.3)."""

from jr_onnx.detect.evaluate import DetectFigures, DetectRequest, DetectResult, detect
from jr_onnx.detect.lid import LidFeatures, lid

__all__ = ["DetectFigures", "DetectRequest", "DetectResult", "LidFeatures", "detect", "lid"]
