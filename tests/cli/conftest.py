"""A runner for commands as a person types them, and small models to run them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jr_onnx.cli.app import run


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def jr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `jr-onnx WORDS...` in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def small_model(**changes: object) -> onnx.ModelProto:
    """Gemm, Relu, Gemm: (N, 4) -> (N, 2)."""
    first = helper.make_tensor("w1", TensorProto.FLOAT, [4, 4], [((i * 7) % 5 - 2) / 4 for i in range(16)])
    second = helper.make_tensor("w2", TensorProto.FLOAT, [4, 2], [((i * 3) % 7 - 3) / 4 for i in range(8)])
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1"], ["h"], name="fc1"),
            helper.make_node("Relu", ["h"], ["a"], name="act1"),
            helper.make_node("Gemm", ["a", "w2"], ["y"], name="fc2"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [first, second],
    )
    options: dict[str, object] = {"opset": 17, "ir_version": 9, **changes}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", int(str(options["opset"])))],
        ir_version=int(str(options["ir_version"])),
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small model in a file of its own folder."""
    path = tmp_path / "net.onnx"
    onnx.save(small_model(), path)
    return path


def autoencoder(threshold: float | None = None) -> onnx.ModelProto:
    """A JumpReLU sparse autoencoder as PyTorch exports it, (N, 8) -> 16 features -> (N, 8); thresholds 0.05 to 0.8."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
sae (float[N,8] x) => (float[N,8] y) {
  h = MatMul(x, encoder)
  z = Add(h, bias)
  a = Relu(z)
  above = Greater(z, threshold)
  mask = Cast<to = 1>(above)
  features = Mul(a, mask)
  y = MatMul(features, decoder)
}"""
    model = onnx.parser.parse_model(text)
    for node, name in zip(
        model.graph.node, ("encode", "shift", "relu", "above", "mask", "gate", "decode"), strict=True
    ):
        node.name = name
    generator = np.random.default_rng(11)
    weights = {"encoder": (8, 16), "bias": (16,), "decoder": (16, 8)}
    tensors = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    tensors["threshold"] = np.asarray(np.linspace(0.05, 0.8, 16) if threshold is None else threshold, np.float32)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in tensors.items())
    return model


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    """The file of a JumpReLU sparse autoencoder."""
    path = tmp_path / "sae.onnx"
    onnx.save(autoencoder(), path)
    return path
