"""Networks with random weights for measurements: the shapes are what counts, no training and no torch needed.

Convolutions carry a bias as exporters leave it after folding batch normalisation, and weights of He's variance
(2 / fan-in), so that activations keep a standard deviation near 1 through the whole network: no infinities, and no
denormal numbers, which slow a processor down many times and would spoil a measurement. The last convolution of a
residual branch is scaled down for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.errors import InputError

_OPSET = 17
_IR_VERSION = 8
_BRANCH = 0.4  # scale of the last convolution of a residual branch

Weights = npt.NDArray[np.float32]


class _Net:
    """A graph under construction; every method adds nodes and returns the name of their result."""

    def __init__(self, seed: int, *, relu6: bool = False) -> None:
        self._random = np.random.default_rng(seed)
        self._relu6 = relu6
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def conv(
        self, x: str, inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, gain: float = 1.0
    ) -> str:
        fan_in = inputs // groups * size * size
        weight = self._normal((outputs, inputs // groups, size, size), gain * (2 / fan_in) ** 0.5)
        bias = self._normal((outputs,), 0.05)
        return self._add(
            "Conv", [x, weight, bias], kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4,
            group=groups,
        )  # fmt: skip

    def norm(self, x: str, channels: int) -> str:
        scale = self._constant((1 + 0.1 * self._random.standard_normal(channels)).astype(np.float32))
        names = [self._normal((channels,), 0.1), self._normal((channels,), 0.1)]
        variance = self._constant(np.full(channels, 1.5, dtype=np.float32))
        return self._add("BatchNormalization", [x, scale, *names, variance])

    def relu(self, x: str) -> str:
        if not self._relu6:
            return self._add("Relu", [x])
        return self._add("Clip", [x, self._scalar("zero", 0.0), self._scalar("six", 6.0)])

    def add(self, x: str, y: str) -> str:
        return self._add("Add", [x, y])

    def max_pool(self, x: str) -> str:
        return self._add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def mean_pool(self, x: str) -> str:
        return self._add("Flatten", [self._add("GlobalAveragePool", [x])])

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        weight = self._normal((outputs, inputs), (2 / inputs) ** 0.5)
        return self._add("Gemm", [x, weight, self._normal((outputs,), 0.05)], transB=1)

    def model(self, name: str, shape: list[int | str], x: str, classes: int) -> onnx.ModelProto:
        last = self.nodes[-1]
        if last.output[0] != x:
            raise ValueError(f"{x!r} is not the last result")
        last.output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], classes])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)

    def _add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def _normal(self, shape: tuple[int, ...], deviation: float) -> str:
        return self._constant(self._random.standard_normal(shape, dtype=np.float32) * np.float32(deviation))

    def _scalar(self, name: str, value: float) -> str:
        if all(tensor.name != name for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def _constant(self, value: Weights) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 (He et al. 2016, stride in the 3x3 convolution); image (N, 3, 224, 224), logits (N, 1000)."""
    net = _Net(seed)
    x = net.max_pool(net.relu(net.conv("image", 3, 64, 7, stride=2)))
    inputs = 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            y = net.relu(net.conv(x, inputs, width, 1))
            y = net.relu(net.conv(y, width, width, 3, stride=stride))
            y = net.conv(y, width, 4 * width, 1, gain=_BRANCH)
            shortcut = x if block else net.conv(x, inputs, 4 * width, 1, stride=stride)
            x, inputs = net.relu(net.add(y, shortcut)), 4 * width
    return net.model("resnet50", ["N", 3, 224, 224], net.linear(net.mean_pool(x), inputs, 1000), 1000)


def mobilenet_v2(seed: int = 0, *, relu6: bool = False) -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al. 2018), with ReLU or ReLU6; image (N, 3, 224, 224), logits (N, 1000)."""
    net = _Net(seed, relu6=relu6)
    x = net.relu(net.conv("image", 3, 32, 3, stride=2))
    inputs = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, outputs, blocks, first_stride in stages:
        for block in range(blocks):
            stride, inner = first_stride if block == 0 else 1, inputs * expansion
            y = net.relu(net.conv(x, inputs, inner, 1)) if expansion > 1 else x
            y = net.relu(net.conv(y, inner, inner, 3, stride=stride, groups=inner))
            has_shortcut = stride == 1 and inputs == outputs
            y = net.conv(y, inner, outputs, 1, gain=_BRANCH if has_shortcut else 1.0)
            x, inputs = net.add(y, x) if has_shortcut else y, outputs
    x = net.relu(net.conv(x, inputs, 1280, 1))
    return net.model("mobilenet_v2", ["N", 3, 224, 224], net.linear(net.mean_pool(x), 1280, 1000), 1000)


def wide_resnet(seed: int = 0, *, blocks: int = 4, width: int = 4) -> onnx.ModelProto:
    """Wide residual network (Zagoruyko and Komodakis 2016); image (N, 3, 32, 32), logits (N, 10).

    Batch normalisation behind a sum remains a separate node, because there is no convolution to fold it into.
    """
    net = _Net(seed)
    x, inputs = net.conv("image", 3, 16, 3), 16
    for stage, stride in enumerate((1, 2, 2)):
        outputs = 16 * width << stage
        for block in range(blocks):
            y = net.relu(net.norm(x, inputs))
            y = net.relu(net.conv(y, inputs, outputs, 3))
            step = stride if block == 0 else 1
            y = net.conv(y, outputs, outputs, 3, stride=step, gain=_BRANCH)
            shortcut = x if step == 1 and inputs == outputs else net.conv(x, inputs, outputs, 1, stride=step)
            x, inputs = net.add(y, shortcut), outputs
    x = net.mean_pool(net.relu(net.norm(x, inputs)))
    return net.model("wide_resnet", ["N", 3, 32, 32], net.linear(x, inputs, 10), 10)


def mlp(seed: int = 0) -> onnx.ModelProto:
    """Perceptron 784-2048-2048-10; image (N, 784), logits (N, 10)."""
    net = _Net(seed)
    x = net.relu(net.linear("image", 784, 2048))
    x = net.relu(net.linear(x, 2048, 2048))
    return net.model("mlp", ["N", 784], net.linear(x, 2048, 10), 10)


BENCH_MODELS: Final[dict[str, Callable[[int], onnx.ModelProto]]] = {
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "wide_resnet": wide_resnet,
    "mlp": mlp,
}


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """Return one of `BENCH_MODELS`.

    Raises:
        InputError: There is none of this name.
    """
    if name not in BENCH_MODELS:
        raise InputError(f"there is no benchmark model {name!r}, expected one of {', '.join(BENCH_MODELS)}")
    return BENCH_MODELS[name](seed)
