"""The reference evaluator computes older operators as ONNX Runtime does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jr_onnx.verifier.evaluators.older_operators import older_operators


def model(node: onnx.NodeProto, opset: int, element: int, constants: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[type-arg]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", element, [2, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def agree(proto: onnx.ModelProto, x: np.ndarray, atol: float) -> None:  # type: ignore[type-arg]
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    (found,) = ReferenceEvaluator(proto, new_ops=older_operators(proto)).run(None, {"x": x})
    assert found.dtype == expected.dtype
    # Three roundings of numbers up to 1 (10 for logarithms of them).
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("opset", [9, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax(operator: str, axis: int | None, opset: int) -> None:
    attributes = {} if axis is None else {"axis": axis}
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32) * 3
    agree(model(helper.make_node(operator, ["x"], ["y"], **attributes), opset, TensorProto.FLOAT, {}), x, 4e-6)


@pytest.mark.parametrize(("opset", "axis"), [(10, None), (13, None), (13, 1), (17, 2), (19, 1)])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_dequantize(kind: type[np.generic], opset: int, axis: int | None) -> None:
    size = 1 if axis is None else (2, 3, 4)[axis]
    scale = np.linspace(0.1, 0.4, size).astype(np.float32)
    zero = np.arange(size).astype(kind)
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], **({} if axis is None else {"axis": axis}))
    element = TensorProto.INT8 if kind is np.int8 else TensorProto.UINT8
    x = np.random.default_rng(0).integers(0, 100, (2, 3, 4)).astype(kind)
    agree(model(node, opset, element, {"s": scale, "z": zero}), x, 0.0)


@pytest.mark.parametrize("opset", [7, 9, 13, 15])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": 0.1}, {"momentum": 0.7}])
def test_batch_normalization_of_inference(opset: int, attributes: dict[str, float]) -> None:
    generator = np.random.default_rng(0)
    constants = {name: generator.standard_normal(3).astype(np.float32) for name in ("s", "b", "m")}
    constants["v"] = np.abs(generator.standard_normal(3)).astype(np.float32)
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], **attributes)
    x = generator.standard_normal((2, 3, 4)).astype(np.float32)
    agree(model(node, opset, TensorProto.FLOAT, constants), x, 4e-6)


@pytest.mark.parametrize("size", [1, 3, 5])  # ONNX Runtime takes no even ones
def test_lrn_normalises_every_channel(size: int) -> None:
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.7, bias=1.2)
    proto = model(node, 17, TensorProto.FLOAT, {})
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 7, 2, 2]))
    agree(proto, np.random.default_rng(0).standard_normal((3, 7, 2, 2)).astype(np.float32) * 3, 4e-6)


def test_dropout_of_old_passes_values_on_or_is_refused() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    passes = model(helper.make_node("Dropout", ["x"], ["y", "m"], is_test=1), 6, TensorProto.FLOAT, {})
    (found,) = ReferenceEvaluator(passes, new_ops=older_operators(passes)).run(["y"], {"x": x})
    np.testing.assert_array_equal(found, x)
    trains = model(helper.make_node("Dropout", ["x"], ["y"]), 6, TensorProto.FLOAT, {})
    with pytest.raises(NotImplementedError, match="draws random numbers"):
        ReferenceEvaluator(trains, new_ops=older_operators(trains)).run(None, {"x": x})


def test_newer_models_get_the_evaluators_own() -> None:
    assert older_operators(model(helper.make_node("Softmax", ["x"], ["y"]), 21, TensorProto.FLOAT, {})) == []
