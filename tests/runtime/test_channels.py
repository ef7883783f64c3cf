"""A session with a kappa per channel: the same result as the plain way, and the reason where it goes that way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import jr_onnx
from jr_onnx.modelfile import load
from jr_onnx.rewriter.agreement import examine
from jr_onnx.runtime.ops_library import Target
from jr_onnx.runtime.saved import optimize
from jr_onnx.semantics import SiteKappa, jump_relu, round_kappa
from tools.bench.autoencoder import autoencoder


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
    kappas: dict[str, SiteKappa] = {"a": tuple(float(value) for value in range(7)), "b": 2.0}
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


@pytest.mark.parametrize(("library", "target"), [(True, "cpu"), (False, "cpu"), (None, "cuda")])
@pytest.mark.parametrize("channels", [7, 3000])
def test_the_saved_model_agrees_with_its_kappas_per_channel(
    tmp_path: Path, channels: int, library: bool | None, target: Target
) -> None:
    """Many channels stand in a part of the file that is not parsed, few in the graph."""
    source, fast = tmp_path / "sae.onnx", tmp_path / "fast.onnx"
    onnx.save(autoencoder(4, channels), source)
    fused, _ = jr_onnx.fuse(source)
    optimize(fused, fast, use_library=library, target=target)
    file = load(fast)
    assert not examine(file.proto, file.payloads).mismatches
    assert not examine(onnx.load(fast)).mismatches
    if target == "cpu":
        session = jr_onnx.InferenceSession(fast, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
        plain = jr_onnx.InferenceSession(fused, providers=["CPUExecutionProvider"], retrofit="plain")
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], plain.run(None, {"x": x})[0])


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("change", ["a value", "the order", "a channel less", "one number"])
def test_other_kappas_per_channel_in_a_saved_model_are_found(tmp_path: Path, change: str, library: bool) -> None:
    source, fast = tmp_path / "model.onnx", tmp_path / "fast.onnx"
    onnx.save(perceptron(), source)
    kappas: dict[str, SiteKappa] = {"a": tuple(float(value) for value in range(7)), "b": 2.0}
    path, _ = jr_onnx.rewrite(source, kappas)
    optimize(path, fast, use_library=library)
    model = onnx.load(fast)
    assert not examine(model).mismatches
    tensor = next(
        node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.output[0].endswith("/jr_kappa") and node.attribute[0].t.dims
    )
    values = numpy_helper.to_array(tensor).copy()
    if change == "a value":
        values[3] = 3.5
    elif change == "the order":
        values = values[::-1].copy()
    elif change == "a channel less":
        values = values[:6].copy()
    else:
        values = np.array(3, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values))
    (found,) = examine(model).mismatches
    assert "site a has kappa per channel: 0 to 6 (7 channels) by the provenance" in found.message


def test_two_sites_need_their_kappa_twice_in_a_saved_model(tmp_path: Path) -> None:
    source, fast = tmp_path / "model.onnx", tmp_path / "fast.onnx"
    onnx.save(perceptron(), source)
    path, _ = jr_onnx.rewrite(source, 2.0)
    optimize(path, fast, use_library=True)
    model = onnx.load(fast)
    assert not examine(model).mismatches
    last = [node for node in model.graph.node if node.op_type == "JumpRelu"][-1]
    last.attribute[0].f = 0.0
    (found,) = examine(model).mismatches
    assert found.message == (
        "site b has kappa 2 by the provenance, and the kappas in the graph are 0, 2, none of them left for it"
    )


def test_an_optimised_session_of_a_fused_model_runs_nothing_unread(tmp_path: Path) -> None:
    source, fast = tmp_path / "sae.onnx", tmp_path / "fast.onnx"
    onnx.save(autoencoder(4, 7), source)
    fused, _ = jr_onnx.fuse(source)
    optimize(fused, fast, use_library=True)
    assert not {"Relu", "Greater", "Cast", "Mul"} & {node.op_type for node in onnx.load(fast).graph.node}


def test_thresholds_in_external_data_are_read_where_session_options_name_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "sae.onnx"
    onnx.save(autoencoder(4, 3000), source, save_as_external_data=True, location="sae.data", size_threshold=0)
    fused, _ = jr_onnx.fuse(source)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    session = jr_onnx.InferenceSession(Path(fused).read_bytes(), options, providers=["CPUExecutionProvider"])
    assert session.retrofit.mode == "optimised", session.retrofit.reason
    assert not session.retrofit.mismatch
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    plain = jr_onnx.InferenceSession(fused, providers=["CPUExecutionProvider"], retrofit="plain")
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], plain.run(None, {"x": x})[0])
