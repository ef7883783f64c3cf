"""Models that show what a server does to their inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite

LOW, HIGH = 0.1, 0.2
KAPPA = 0.06

TYPES = {
    "BOOL": (TensorProto.BOOL, np.array([True, False, True])),
    "UINT8": (TensorProto.UINT8, np.array([0, 1, 255], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([0, 1, 65535], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([0, 1, 2**32 - 1], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([0, 1, 2**64 - 1], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([-128, 0, 127], np.int8)),
    "INT16": (TensorProto.INT16, np.array([-32768, 0, 32767], np.int16)),
    "INT32": (TensorProto.INT32, np.array([-(2**31), 0, 2**31 - 1], np.int32)),
    "INT64": (TensorProto.INT64, np.array([-(2**63), 0, 2**63 - 1], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([-1.5, 0, 65504], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([-1.1, 0, 3.4e38], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([-1.1, 0, 1.7e308], np.float64)),
    "BYTES": (TensorProto.STRING, np.array(["", "a", "jump ä"], dtype=object)),
}


def _save(path: Path, nodes: list, inputs: list, outputs: list, weights: list | None = None, opset: int = 17) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _float(name: str, *dims: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def perceptron(path: Path, scale: float = 1.0) -> Path:
    """x (N, 16) -> MatMul, Relu, MatMul -> y (N, 4)."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((scale * generator.standard_normal(shape)).astype(np.float32), name)
        for name, shape in (("w1", (16, 64)), ("w2", (64, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    return _save(path, nodes, [_float("x", "N", 16)], [_float("y", "N", 4)], weights)


def jump(path: Path) -> Path:
    """x (N, 64) -> Relu -> y: what a retrofit of it gives away is its kappa."""
    return _save(path, [helper.make_node("Relu", ["x"], ["y"])], [_float("x", "N", 64)], [_float("y", "N", 64)])


def every_type(path: Path) -> Path:
    """One Identity for each element type: `in_<datatype>` (N,) -> `out_<datatype>` (N,)."""
    nodes, inputs, outputs = [], [], []
    for name, (code, _) in TYPES.items():
        nodes.append(helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]))
        inputs.append(helper.make_tensor_value_info(f"in_{name}", code, ["N"]))
        outputs.append(helper.make_tensor_value_info(f"out_{name}", code, ["N"]))
    return _save(path, nodes, inputs, outputs)


def slow(path: Path) -> Path:
    """trips () int64 -> as many products of 256 x 256 matrices, one after the other -> y (1,); a millisecond each."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            _float("state", 256, 256),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), _float("next", 256, 256)],
    )
    weights = [
        numpy_helper.from_array(np.eye(256, dtype=np.float32), "w"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array([0, 1], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Loop", ["trips", "yes", "w"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["y"], axes=[0, 1], keepdims=0),
    ]
    trips = helper.make_tensor_value_info("trips", TensorProto.INT64, [])
    return _save(path, nodes, [trips], [_float("y")], weights)


def whole_batch(path: Path) -> Path:
    """x (N, 16) -> x minus the mean over the batch: rows that see each other."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return _save(path, nodes, [_float("x", "N", 16)], [_float("y", "N", 16)])


def lookup(path: Path) -> Path:
    """ids (N, L) int64 -> rows of a table of 4: an index beyond it is a request the model cannot compute."""
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])
    return _save(
        path, [helper.make_node("Gather", ["table", "ids"], ["y"])], [ids], [_float("y", "N", "L", 2)], [table]
    )


def retrofits(folder: Path) -> dict[str, Path]:
    """Write the models that most tests ask, by name."""
    plain = perceptron(folder / "plain.onnx")
    relu = jump(folder / "relu.onnx")
    result = {
        "fixed": folder / "fixed.jr.onnx",
        "drawn": folder / "drawn.jr.onnx",
        "input": folder / "input.jr.onnx",
        "types": every_type(folder / "types.onnx"),
        "slow": slow(folder / "slow.onnx"),
        "lookup": lookup(folder / "lookup.onnx"),
        "whole": whole_batch(folder / "whole.onnx"),
    }
    rewrite(plain, KAPPA, output=result["fixed"])
    rewrite(relu, RandomKappa(LOW, HIGH), output=result["drawn"])
    rewrite(relu, KappaPlan(kappa=0.15, input_name="kappa"), output=result["input"])
    return result
