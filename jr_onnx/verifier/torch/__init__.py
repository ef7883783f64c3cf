"""A torch network against its ONNX export; the only part of the verification that imports torch."""
