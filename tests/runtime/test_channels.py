"""A session with a kappa per channel: the same result as the plain way, and the reason where it goes that way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import jr_onnx
from jr_onnx.semantics import jump_relu, round_kappa


def perceptron() -> onnx.ModelProto:
    """Return x (N, 5) -> Gemm -> Relu a -> Gemm -> Relu b, weights of which every sum is exact."""
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.integers(-2, 3, shape).astype(np.float32), name)
        for name, shape in (("w1", (5, 7)), ("b1", (7,)), ("w2", (7, 3)))
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"], name="a"),
        helper.make_node("Gemm", ["r", "w2"], ["l"]),
        helper.make_node("Relu", ["l"], ["y"], name="b"),
    ]
    values = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", ["N", 5]), ("y", ["N", 3]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("lowering", ["where", "custom"])
def test_a_session_computes_j_with_the_kappa_of_the_channel(tmp_path: Path, lowering: Any, library: bool) -> None:
    kappas = {"a": tuple(float(value) for value in range(7)), "b": 2.0}
    source = tmp_path / "model.onnx"
    onnx.save(perceptron(), source)
    path, _ = jr_onnx.rewrite(source, kappas, lowering=lowering)
    session = jr_onnx.InferenceSession(path, providers=["CPUExecutionProvider"], op_library=library)
    assert session.retrofit.mode == "optimised", session.retrofit.reason
    x = np.random.default_rng(1).integers(-3, 4, (50, 5)).astype(np.float32)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in perceptron().graph.initializer}
    hidden = jump_relu(x @ weights["w1"] + weights["b1"], round_kappa(kappas["a"], "float32"))
    expected = jump_relu(hidden @ weights["w2"], 2.0)
    assert np.array_equal(session.run(None, {"x": x})[0], expected)
