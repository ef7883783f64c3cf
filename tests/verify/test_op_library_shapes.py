"""The op library hands on only shapes that ONNX Runtime can read back; verify found what happens otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.runtime import status
from jr_onnx.verify import InputWish, verify


@pytest.fixture(autouse=True)
def library() -> None:
    found = status("cpu")
    if not found.loadable:
        pytest.skip(f"the op library is not built: {found.reason}")


def squeezed(shape: list[Any] | None) -> onnx.ModelProto:
    """x -> ReLU -> Squeeze(axis 1): an operator that does not take a shape of the wrong rank, or the size -1."""
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="act"), helper.make_node("Squeeze", ["a", "axes"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "shape", [None, [None, None, 5], ["batch", None, 5], ["batch", 1, 5], [2, 1, 5], ["a", "b", "c"]]
)
def test_shapes_known_half_known_and_unknown(shape: list[Any] | None) -> None:
    report = verify(squeezed(shape), 0.06, samples=2, wish=InputWish(shapes={"x": (2, 1, 5)}))
    assert report, report.failures
    assert "custom + op library" in report.lowerings


def test_a_scalar() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="act"), helper.make_node("Neg", ["a"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report = verify(model, 0.06, samples=2)
    assert report, report.failures
