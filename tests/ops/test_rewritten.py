"""Files written by the rewriter compute the same with the library, and without it through their own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import register

Pair = tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """MatMul, Relu, MatMul, Clip to [0, 6]."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("a", (8, 64)), ("b", (64, 32)))
    ]
    bounds = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("lo", 0), ("hi", 6))]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["g"], name="second"),
        helper.make_node("Clip", ["g", "lo", "hi"], ["y"], name="clip"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [*weights, *bounds],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def open_both(model: onnx.ModelProto) -> Pair:
    """Open a model with the library and without."""
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    register(options, "cpu")
    providers = ["CPUExecutionProvider"]
    return (
        onnxruntime.InferenceSession(data, options, providers=providers),
        onnxruntime.InferenceSession(data, providers=providers),
    )


def images() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32)


def test_a_fixed_kappa(cpu_library: Path, network: onnx.ModelProto) -> None:
    model, _ = rewrite(network, 0.5, lowering="custom", target="cpu")
    assert [node.op_type for node in model.graph.node].count("JumpRelu") == 2
    kernel, function = open_both(model)
    assert kernel.run(None, {"x": images()})[0].tobytes() == function.run(None, {"x": images()})[0].tobytes()


def test_kappa_as_an_input(cpu_library: Path, network: onnx.ModelProto) -> None:
    plan = KappaPlan(kappa=0.5, input_name="kappa")
    model, _ = rewrite(network, plan, lowering="custom", target="cpu")
    kernel, function = open_both(model)
    results = []
    for feeds in ({}, {"kappa": np.array(0.5, np.float32)}, {"kappa": np.array(2.0, np.float32)}):
        both = [session.run(None, {"x": images(), **feeds})[0].tobytes() for session in (kernel, function)]
        assert both[0] == both[1]
        results.append(both[0])
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("per", ["network", "site"])
def test_a_drawn_kappa(cpu_library: Path, network: onnx.ModelProto, per: Any) -> None:
    random = RandomKappa(0.2, 2.0, per=per, source="op")
    model, _ = rewrite(network, random, lowering="custom", target="cpu")
    drawn = [node.op_type for node in model.graph.node].count("DrawKappa")
    assert drawn == (1 if per == "network" else 0)
    kernel, _ = open_both(model)
    results = {kernel.run(None, {"x": images()})[0].tobytes() for _ in range(8)}
    assert len(results) > 1
