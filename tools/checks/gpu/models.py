"""Retrofit against original on the GPU: three networks, two types, three batch sizes, data kept on the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from jr_onnx.bench import BenchReport, BenchRequest, benchmark
from jr_onnx.bench.models import build
from jr_onnx.rewriter.lowering import RequestedLowering
from jr_onnx.rewriter.pair import EXPLICIT_LOWERINGS

KAPPA = 0.06
NETWORKS = ("resnet50", "mobilenet_v2", "wide_resnet")
BATCHES = (1, 32, 256)
Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16")
# Opening a session takes seconds, for ONNX Runtime tries cuDNN's algorithms out; and sessions are open side by side,
# each with its memory, so that at 256 images a GPU holds fewer of them. `jr-onnx bench` measures the other options.
# Captured graphs matter where a launch costs as much as its kernel.
_OPTIONS = {
    1: ("default", "fuse_conv_bias", "graph", "graph_fused", "graph_both"),
    32: ("default", "fuse_conv_bias", "both", "graph_both"),
}
_OPTIONS_OF_LARGE = ("default", "fuse_conv_bias", "both")


def measure(
    name: str, *, dtype: Dtype = "float32", provider: str = "cuda", batches: tuple[int, ...] = BATCHES,
    rounds: int = 40, lowerings: tuple[RequestedLowering, ...] = EXPLICIT_LOWERINGS,
    progress: Callable[[str, int, int], None] | None = None,
) -> BenchReport:  # fmt: skip
    """Benchmark one network on a provider.

    Args:
        name: One of `NETWORKS`.
        dtype: Type of its weights, its input and its output.
        provider: cuda; cpu to try the program itself.
        batches: Batch sizes.
        rounds: How often every variant runs.
        lowerings: Which lowerings are measured as they are, beside the session.
        progress: As `bench` takes it.
    """
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        path = Path(folder) / f"{name}.{dtype}.onnx"
        onnx.save(network(name, dtype), str(path))
        request = BenchRequest(
            path, KAPPA, batches=batches, sessions=("plain", "optimised"), providers=(provider,), rounds=rounds,
            with_footprint=False, cuda_options=_OPTIONS.get(max(batches), _OPTIONS_OF_LARGE), lowerings=lowerings,
        )  # fmt: skip
        return benchmark(request, progress)


def network(name: str, dtype: Dtype = "float32") -> onnx.ModelProto:
    """Return one of `NETWORKS` with weights, input and output of a type."""
    model = build(name)
    if dtype == "float32":
        return model
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model
