"""Quantised and float16 forms of small networks, made by ONNX Runtime's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STATIC = {
    "int8": {"activation_type": "QInt8", "per_channel": False},
    "uint8": {"activation_type": "QUInt8", "per_channel": False},
    "int8 per channel": {"activation_type": "QInt8", "per_channel": True},
}


def classifier(*, capped: bool = False) -> onnx.ModelProto:
    """x (N, 1, 8, 8) -> Conv -> act -> Conv -> act -> pool -> Gemm -> act -> Gemm -> logits (N, 10)."""
    generator = np.random.default_rng(0)
    shapes = {
        "k1": (8, 1, 3, 3), "b1": (8,), "k2": (12, 8, 3, 3), "b2": (12,), "w3": (192, 24), "b3": (24,), "w4": (24, 10),
        "b4": (10,),
    }  # fmt: skip
    arrays: dict[str, Any] = {
        name: (generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["w3"] *= np.float32(0.4)

    def act(number: int) -> onnx.NodeProto:
        if capped:
            return helper.make_node("Clip", [f"z{number}", "low", "high"], [f"a{number}"], name=f"act{number}")
        return helper.make_node("Relu", [f"z{number}"], [f"a{number}"], name=f"act{number}")

    if capped:
        arrays |= {"low": np.float32(0), "high": np.float32(1.5)}
    nodes = [
        helper.make_node("Conv", ["x", "k1", "b1"], ["z1"], name="conv1", pads=[1] * 4),
        act(1),
        helper.make_node("Conv", ["a1", "k2", "b2"], ["z2"], name="conv2", pads=[1] * 4),
        act(2),
        helper.make_node("MaxPool", ["a2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["z3"], name="gemm3"),
        act(3),
        helper.make_node("Gemm", ["a3", "w4", "b4"], ["logits"], name="gemm4"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return inputs (count, 1, 8, 8)."""
    return np.random.default_rng(seed).standard_normal((count, 1, 8, 8)).astype(np.float32)


def quantised(source: Path, target: Path, how: str, *, keep: bool = False) -> Path:
    """Quantise statically, with pairs of QuantizeLinear and DequantizeLinear."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self._batches = iter([{"x": image[None]} for image in images(32, 7)])

        def get_next(self) -> Any:
            return next(self._batches, None)

    quantize_static(
        str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8,
        activation_type=getattr(QuantType, str(STATIC[how]["activation_type"])),
        per_channel=bool(STATIC[how]["per_channel"]), extra_options={"QDQKeepRemovableActivations": keep},
    )  # fmt: skip
    return target


def dynamically_quantised(source: Path, target: Path) -> Path:
    """Quantise the weights, and activations as they come."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(source), str(target))
    return target


def in_float16(source: Path, target: Path) -> Path:
    """Convert to float16."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source)), target)
    return target
