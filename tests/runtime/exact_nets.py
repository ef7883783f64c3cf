"""Networks whose arithmetic is exact in float32, so that every correct evaluation gives the same bits.

Weights and inputs are small integers and every sum stays below 2^24: no evaluation order, layout or fusion can round.
What differs between two sessions is then a defect, and pre-activations hit an integer kappa exactly, which tells `>`
from `>=`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KAPPA = 3.0


class ExactNet:
    """A graph under construction; every method adds a node and returns the name of its result."""

    def __init__(self, seed: int, *, opset: int = 17, ir_version: int = 8) -> None:
        self._random = np.random.default_rng(seed)
        self._opset, self._ir_version = opset, ir_version
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def weight(self, shape: tuple[int, ...], density: float = 0.1) -> str:
        values = self._random.integers(-1, 2, shape) * (self._random.random(shape) < density)
        return self.constant(values.astype(np.float32))

    def constant(self, value: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, groups: int = 1, stride: int = 1) -> str:
        weight = self.weight((outputs, inputs // groups, size, size), 0.1 if groups == 1 else 0.8)
        bias = self.constant(self._random.integers(-2, 3, outputs).astype(np.float32))
        pads = [size // 2] * 4
        return self.add("Conv", [x, weight, bias], group=groups, pads=pads, strides=[stride, stride])

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        return self.add("Gemm", [x, self.weight((outputs, inputs)), self.weight((outputs,), 1.0)], transB=1)

    def relu(self, x: str) -> str:
        return self.add("Relu", [x])

    def relu6(self, x: str, cap: float = 6.0) -> str:
        return self.add("Clip", [x, self.constant(np.float32(0)), self.constant(np.float32(cap))])

    def model(self, outputs: list[str], shape: list[Any], imports: tuple[tuple[str, int], ...] = ()) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "exact",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
            doc_string="a graph",
        )
        opsets = [helper.make_opsetid("", self._opset), *(helper.make_opsetid(*entry) for entry in imports)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=self._ir_version, functions=self.functions, producer_name="tests"
        )
        model.metadata_props.add(key="owner", value="tests")
        return model


def convnet(seed: int = 0, *, opset: int = 17) -> onnx.ModelProto:
    """Stem, residual block, depthwise convolution, pooling, two Gemms: what fuses in different ways."""
    net = ExactNet(seed, opset=opset)
    x = net.relu(net.conv("x", 3, 32))
    y = net.conv(net.relu(net.conv(x, 32, 32)), 32, 32)
    x = net.relu(net.add("Add", [y, x]))
    x = net.relu(net.conv(x, 32, 32, groups=32))
    x = net.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.relu(net.conv(x, 32, 48, size=1, stride=2))
    x = net.add("Flatten", [x])
    x = net.relu(net.gemm(x, 48 * 4, 24))
    return net.model([net.gemm(x, 24, 5)], ["N", 3, 8, 8])


def images(count: int = 3, *, seed: int = 1, size: int = 8) -> dict[str, Any]:
    """Inputs of small integers."""
    values = np.random.default_rng(seed).integers(-3, 4, (count, 3, size, size))
    return {"x": values.astype(np.float32)}
