"""Labelled images for verification, attacks and tuning, read with NumPy alone."""

from jr_onnx.data.images import ImageData
from jr_onnx.data.preprocessing import PRESETS, Preprocessing
from jr_onnx.data.source import load
from jr_onnx.data.splits import SPLITS, Split

__all__ = ["PRESETS", "SPLITS", "ImageData", "Preprocessing", "Split", "load"]
