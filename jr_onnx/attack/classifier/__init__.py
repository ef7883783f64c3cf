"""A classifier's file, opened to be attacked: in ONNX Runtime, which judges, and in torch, which gives gradients."""
