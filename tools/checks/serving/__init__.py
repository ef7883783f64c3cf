"""Servers, load and clients for the measurements and tests of `jr-onnx serve`."""
