"""The weights of a model file: which tensors they are, and the same file with other values in them."""

from jr_onnx.weights.find import Weight, find_weights
from jr_onnx.weights.saving import save_weights

__all__ = ["Weight", "find_weights", "save_weights"]
