"""The op library hands on only shapes that ONNX Runtime can read back; verify found what happens otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import from_proto
from jr_onnx.runtime import status
from jr_onnx.verifier import InputOptions, verify
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable
from jr_onnx.verifier.variants import variants


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
    report = verify(squeezed(shape), 0.06, samples=2, input_options=InputOptions(shapes={"x": (2, 1, 5)}))
    assert report, report.failures
    assert "custom + op library" in report.lowerings


def test_a_scalar() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="act"), helper.make_node("Neg", ["a"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report = verify(model, 0.06, samples=2)
    assert report, report.failures


def value(name: str, shape: list[Any] | None, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def behind(before: list[onnx.NodeProto], after: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto]) -> Any:
    """x ... z -> ReLU -> r ... m -> MatMul -> Add -> y: a Gemm where ONNX Runtime knows that m is a matrix."""
    generator = np.random.default_rng(0)
    constants = {
        "kernel": generator.standard_normal((6, 2, 3, 3)).astype(np.float32),
        "weight": generator.standard_normal((6, 5)).astype(np.float32),
        "bias": generator.standard_normal(5).astype(np.float32),
        "first": np.array(0),
        "axes": np.array([0]),
        "channels": np.array([6]),
    }
    nodes = [
        *before,
        helper.make_node("Relu", ["z"], ["r"], name="act"),
        *after,
        helper.make_node("MatMul", ["m", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", None)], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CONV = [helper.make_node("Conv", ["x", "kernel"], ["z"], strides=[2, 2])]
POOL = [helper.make_node("GlobalAveragePool", ["r"], ["g"]), helper.make_node("Flatten", ["g"], ["m"])]
SHAPED = [  # the batch size travels from the shape of the site's result into a Reshape
    helper.make_node("Shape", ["r"], ["s"]),
    helper.make_node("Gather", ["s", "first"], ["n"]),
    helper.make_node("Unsqueeze", ["n", "axes"], ["nn"]),
    helper.make_node("Concat", ["nn", "channels"], ["t"], axis=0),
    helper.make_node("GlobalAveragePool", ["r"], ["g"]),
    helper.make_node("Reshape", ["g", "t"], ["m"]),
]
SAME = [helper.make_node("Identity", ["x"], ["z"])]
GIVEN = [helper.make_node("Reshape", ["x", "target"], ["z"])]
NEXT = [helper.make_node("Identity", ["r"], ["m"])]
NETWORKS = {
    "sizes without a name behind a Conv": behind(CONV, SHAPED, [value("x", ["N", 2, "H", "W"])]),
    "no name at all": behind(SAME, NEXT, [value("x", [None, 6])]),
    "a batch without a name": behind(CONV, POOL, [value("x", [None, 2, None, None])]),
    "a target shape that comes at run time": behind(
        GIVEN, NEXT, [value("x", ["N", "M"]), value("target", [2], TensorProto.INT64)]
    ),
    "a rank that comes at run time": behind(
        GIVEN, NEXT, [value("x", ["N", "M"]), value("target", ["rank"], TensorProto.INT64)]
    ),
    "no rank": behind(SAME, NEXT, [value("x", None)]),
}


def optimised(
    model: onnx.ModelProto, path: Path, lowering: Any, *, library: bool
) -> tuple[list[str], list[int] | None]:
    """Return what ONNX Runtime makes of a lowering: its operators but the site's, and which sizes of y it knows."""
    ((item,), _) = variants(from_proto(model), KappaPlan(by_site=(("act", 0.06),)), (lowering,))
    OrtSession(Runnable("it", item.runnable.file, library=library), "optimised", written=path)
    graph = onnx.load(path).graph
    site = {"ThresholdedRelu", "JumpRelu"}
    shape = graph.output[0].type.tensor_type
    sizes = [size.dim_value for size in shape.shape.dim] if shape.HasField("shape") else None
    return [node.op_type for node in graph.node if node.op_type not in site], sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_knows_behind_the_operator_what_it_knows_behind_a_standard_one(name: str, tmp_path: Path) -> None:
    standard = optimised(NETWORKS[name], tmp_path / "standard.onnx", "thresholded", library=False)
    assert optimised(NETWORKS[name], tmp_path / "own.onnx", "custom", library=True) == standard
    assert ("Gemm" in standard[0]) == ("rank" not in name)
