"""How many passes over memory a network's element-wise work takes on CUDA, before and after a retrofit.

ONNX Runtime's CUDA provider runs the bias of a convolution (`cudnnAddTensor`), a sum and an activation as kernels of
their own, each of which reads and writes the whole tensor. Their number follows from the graph that the provider runs,
so it needs no GPU; what a pass costs does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from jr_onnx.semantics import BIAS_OP_TYPE, OP_TYPE

_ONE_PASS = {"Add", "Relu", "Clip", "ThresholdedRelu", "Sub", "Greater", "Where", OP_TYPE, BIAS_OP_TYPE}
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_BIAS = 2


def count_passes(model: onnx.ModelProto) -> int:
    """Return the element-wise passes of a graph, those for the biases of its convolutions included."""
    passes = 0
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS:
            passes += len(node.input) > _BIAS and node.input[_BIAS] != ""
        else:
            passes += node.op_type in _ONE_PASS
    return passes


def as_run(session_class: Any, model: Any, providers: list[Any], **arguments: Any) -> onnx.ModelProto:
    """Return the graph that a session runs after all optimisation.

    Args:
        session_class: ONNX Runtime's class of sessions, or this package's.
        model: A path or a serialised model.
        providers: As ONNX Runtime takes them.
        **arguments: Further arguments of the session.
    """
    with tempfile.TemporaryDirectory(prefix="passes-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "run.onnx")
        session_class(model, options, providers=providers, **arguments)
        return onnx.load(options.optimized_model_filepath)
