"""Labelled images for verification, attacks and tuning, read with NumPy alone (Pillow for picture folders)."""

from jr_onnx.data.fitting import padded
from jr_onnx.data.further import FurtherInputs
from jr_onnx.data.images import ImageData
from jr_onnx.data.model_input import InputAdapter, ModelInput, required_inputs
from jr_onnx.data.preprocessing import PRESETS, Preprocessing
from jr_onnx.data.source import FORMS, load
from jr_onnx.data.splits import SPLITS, Split

__all__ = [
    "FORMS",
    "PRESETS",
    "SPLITS",
    "FurtherInputs",
    "ImageData",
    "InputAdapter",
    "ModelInput",
    "Preprocessing",
    "Split",
    "load",
    "padded",
    "required_inputs",
]
