"""Opset 6: a lowering that ONNX Runtime runs there, and advice that works where there is none."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jr_onnx.errors import RefusalError
from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.verifier import prove_conversion, verify
from tests.rewriter.strategies import inputs_for

ort = pytest.importorskip("onnxruntime")
SMALLEST, LARGEST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


def old(node: onnx.NodeProto, *more: onnx.NodeProto, opset: int = 6, element: int = 1) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node, *more],
        "g",
        [helper.make_tensor_value_info("x", element, ["N"])],
        [helper.make_tensor_value_info("y", element, ["N"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


def run(model: onnx.ModelProto, x: np.ndarray, optimise: bool) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("kappa", [0.0, SMALLEST, 1e-38, 1e-33, 2.0**-100, 1e-20, 0.06, 0.5, 5.0, 7e20, LARGEST])
def test_j_bit_for_bit(kappa: float, cap: float | None, optimise: bool) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="act")
    if cap is not None:
        node = helper.make_node("Clip", ["x"], ["y"], name="act", min=0.0, max=cap)
    output, result = rewrite(old(node), kappa)
    assert [site.lowering for site in result.sites] == ["log_step"]
    near = np.float32(kappa)
    bits = near.view(np.uint32)
    beside = np.asarray([bits - (bits > 0), bits, bits + np.uint32(kappa < LARGEST)], np.uint32).view(np.float32)
    x = np.concatenate([inputs_for("float32", min(kappa, 1e38)), beside])
    expected = np.where(x > near, x, np.float32(0))
    expected = expected if cap is None else np.minimum(expected, np.float32(cap))
    np.testing.assert_array_equal(run(output, x, optimise).view(np.uint32), expected.view(np.uint32))
    assert restore(output) == old(node)


def test_verify_passes_at_opset_6() -> None:
    model = old(helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"], name="act"))
    report = verify(rewrite(model, 0.5)[0], original=model, samples=2)
    assert report, report.failures


def test_fused_nodes_at_opset_6() -> None:
    """Neither Gemm nor Add has a kernel there; what replaces them does."""
    weights = {
        "w": np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32),
        "m": np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32),
    }
    fused = {"domain": "com.microsoft", "activation": "Relu"}
    nodes = [
        helper.make_node("FusedConv", ["x", "w"], ["a"], name="conv", pads=[1] * 4, **fused),
        helper.make_node("FusedConv", ["x", "w", "", "a"], ["b"], name="sum", pads=[1] * 4, **fused),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("FusedGemm", ["f", "m"], ["y"], name="gemm", **fused),
    ]
    shapes = [("x", [1, 1, 2, 2]), *((name, list(value.shape)) for name, value in weights.items())]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes],
        [helper.make_tensor_value_info("y", 1, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", 6), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=3)
    x = np.random.default_rng(2).normal(size=(1, 1, 2, 2)).astype(np.float32)
    zero = rewrite(model, 0.0)[0]
    np.testing.assert_allclose(run(zero, x, True), run(model, x, True), rtol=1e-5, atol=1e-6)
    report = verify(rewrite(model, 0.5)[0], original=model, samples=2)
    assert report, report.failures


@pytest.mark.parametrize(
    ("model", "kappa", "options"),
    [
        (old(helper.make_node("Relu", ["x"], ["y"]), opset=5), 0.5, {}),
        (old(helper.make_node("Relu", ["x"], ["y"]), element=11), 0.5, {}),
        (old(helper.make_node("Relu", ["x"], ["y"])), RandomKappa(0.1, 0.2), {}),
    ],
)
def test_the_advice_of_a_refusal_works(model: onnx.ModelProto, kappa: object, options: dict[str, object]) -> None:
    with pytest.raises(RefusalError, match="is below 7, where no lowering exists for") as caught:
        rewrite(model, kappa, **options)
    advised = re.search(r"--opset (\d+)", caught.value.hint)
    assert advised is not None, caught.value.hint
    rewrite(model, kappa, opset=int(advised[1]), prove=lambda *_: "")


def test_no_advice_is_given_where_none_works() -> None:
    model = old(
        helper.make_node("NobodyKnows", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"], name="act"), opset=5
    )
    with pytest.raises(RefusalError, match=r"No --opset helps: .*NobodyKnows"):
        rewrite(model, 0.5, prove=prove_conversion)
