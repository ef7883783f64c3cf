"""Models that are measured, and one request to each as binary tensors, JSON and a gRPC message."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.rewriter import rewrite
from jr_onnx.verifier.whole_model.tolerance import nudge, rounding_bound
from tools.checks.serving.processes import ROOT

KAPPA = 0.06
PATH = "/v2/models/model/infer"
_CONTROLS = 16


@dataclass(frozen=True)
class Request:
    """A request as bytes.

    Attributes:
        transport: "http" or "grpc".
        file: The body, or the message.
        bound: How far two correct answers to it may be apart.
        header_length: How much of the body is JSON where tensors follow; 0 for all of it, and for gRPC.
    """

    transport: str
    file: Path
    bound: float
    header_length: int = 0

    @property
    def content_type(self) -> str:
        """The body's type over HTTP."""
        return "application/octet-stream" if self.header_length else "application/json"


def conv_model(side: int) -> onnx.ModelProto:
    """Return a small convolution network on images of shape (N, 3, side, side)."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [weight("w0", 8, 3, 3, 3), weight("w1", 8, 8, 3, 3), weight("w2", 8, 10)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def source_of(model: Path) -> Path:
    """Return where the original of a written model lies."""
    return model.with_suffix(".source.onnx")


def write_model(proto: onnx.ModelProto, path: Path) -> Path:
    """Retrofit a model with one kappa and nodes of ONNX alone, which every server can run, and write it."""
    onnx.save(proto, source_of(path))
    rewrite(source_of(path), KAPPA, output=path)
    return path


def bound_of(original: Path, array: NDArray[np.float32]) -> float:
    """Return how far two correct answers may be apart: measured on the original model, whose ReLU has no jump."""
    session = onnxruntime.InferenceSession(str(original), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    generator = np.random.default_rng(2)
    (exact,) = session.run(None, {name: array})
    moved = [session.run(None, {name: nudge(array, generator)})[0] for _ in range(_CONTROLS)]
    return rounding_bound([(exact, other) for other in moved]).value


def write_requests(model: Path, folder: Path) -> dict[str, Request]:
    """Write one request of batch 1 in three forms: "binary", "json" and "grpc"."""
    entry = onnx.load(model).graph.input[0]
    sizes = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    array = np.random.default_rng(1).random(sizes, dtype=np.float32)
    bound = bound_of(source_of(model), array)
    tensor: dict[str, Any] = {"name": entry.name, "shape": sizes, "datatype": "FP32"}
    raw = array.tobytes()
    header = orjson.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    files = {kind: folder / f"{model.stem}.{kind}" for kind in ("binary", "json", "raw", "grpc")}
    files["binary"].write_bytes(header + raw)
    files["json"].write_bytes(orjson.dumps({"inputs": [{**tensor, "data": array.ravel().tolist()}]}))
    files["raw"].write_bytes(raw)
    words = ["write", orjson.dumps(tensor).decode(), str(files["raw"]), str(files["grpc"])]
    subprocess.run([sys.executable, "-W", "ignore", "-m", "tools.checks.serving.message", *words], cwd=ROOT, check=True)
    return {
        "binary": Request("http", files["binary"], bound, len(header)),
        "json": Request("http", files["json"], bound),
        "grpc": Request("grpc", files["grpc"], bound),
    }
