"""What computes a model: ONNX Runtime, and ONNX's reference evaluator with the operators that it lacks."""
