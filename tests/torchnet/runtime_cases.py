"""Single-node models for what ONNX's node cases do not cover: older operator sets and ONNX Runtime's own domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

MICROSOFT = "com.microsoft"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One node: its operator, operator set, inputs by position (None for an absent one) and attributes."""

    operator: str
    opset: int
    inputs: Sequence[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    quantum: float = 0.0
    """How far a quantised result may be off: one step where products of scales are rounded differently."""

    @property
    def key(self) -> tuple[str, str]:
        return self.domain, self.operator

    def __str__(self) -> str:
        shown = "-".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.operator}-{self.opset}-{shown}".replace(" ", "")

    def model(self) -> onnx.ModelProto:
        """The first input is the graph's input, the others are initializers."""
        names = [f"i{at}" if value is not None else "" for at, value in enumerate(self.inputs)]
        outputs = [f"o{at}" for at in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, name="node", domain=self.domain, **self.attributes)
        first = self.inputs[0]
        assert first is not None
        entry = helper.make_tensor_value_info(names[0], helper.np_dtype_to_tensor_dtype(first.dtype), list(first.shape))
        graph = helper.make_graph(
            [node],
            "case",
            [entry],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [
                onnx.numpy_helper.from_array(value, name)
                for name, value in zip(names[1:], self.inputs[1:], strict=True)
                if value is not None
            ],
        )
        imports = [helper.make_opsetid("", self.opset)]
        if self.domain:
            imports.append(helper.make_opsetid(self.domain, 1))
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


_random = np.random.default_rng(0)


def _x(*shape: int) -> Array:
    return _random.standard_normal(shape).astype(np.float32)


def _i(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def _f(value: float) -> Array:
    return np.array(value, dtype=np.float32)


def _u8(*shape: int) -> Array:
    return _random.integers(0, 256, shape).astype(np.uint8)


_Q = {"domain": MICROSOFT, "quantum": 1.0}
_CONV = [_x(2, 3, 7, 8), _x(4, 3, 3, 3), _x(4)]
_QUANTISED = [
    _u8(2, 3, 4, 4),
    _f(0.0213),
    np.uint8(120),
    _u8(2, 3, 4, 4),
    _f(0.0341),
    np.uint8(90),
    _f(0.0477),
    np.uint8(128),
]

CASES: tuple[Case, ...] = (
    # Operators with older semantics or attribute forms.
    *(
        Case(name, 11, [_x(2, 3, 4, 5)], {"axis": axis})
        for name in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (0, 1, 2, 3)
    ),
    Case("Squeeze", 11, [_x(1, 3, 1, 5)], {"axes": [0, 2]}),
    Case("Squeeze", 11, [_x(1, 3, 1, 5)]),
    Case("Unsqueeze", 11, [_x(3, 5)], {"axes": [0, 2]}),
    *(
        Case(name, 11, [np.abs(_x(2, 3, 4)) + 0.5], {"axes": [0, -1], "keepdims": keep})
        for name in (
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        )
        for keep in (0, 1)
    ),
    Case("Clip", 7, [_x(2, 9)], {"min": -0.5, "max": 0.7}),
    Case("Clip", 10, [_x(2, 9)], {"max": 0.7}),
    *(
        Case("Pad", 10, [_x(1, 2, 4, 5)], {"pads": [0, 0, 1, 2, 0, 1, 2, 1], "mode": mode})
        for mode in ("constant", "edge")
    ),
    Case("Pad", 10, [_x(1, 2, 4, 5)], {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": "reflect"}),
    Case("Pad", 10, [_x(1, 2, 4, 5)], {"pads": [0, 0, -1, 2, 0, 0, 1, -2], "value": 0.5}),
    Case("Slice", 9, [_x(5, 6, 7)], {"starts": [1, -3], "ends": [4, 1000], "axes": [0, 2]}),
    Case("Slice", 9, [_x(5, 6)], {"starts": [1, 2], "ends": [4, -1]}),
    Case("Slice", 10, [_x(5, 6), _i(4, -1), _i(-100, 1), _i(0, 1), _i(-2, -1)]),
    Case("Split", 11, [_x(2, 7)], {"axis": 1, "split": [2, 4, 1]}, outputs=3),
    Case("Split", 7, [_x(2, 6)], {"axis": -1}, outputs=3),
    Case("Upsample", 7, [_x(1, 2, 3, 4)], {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    Case("Upsample", 9, [_x(1, 2, 3, 4), np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    Case("Resize", 10, [_x(1, 2, 3, 4), np.array([1, 1, 2, 2.5], np.float32)], {"mode": "nearest"}),
    Case("Resize", 10, [_x(1, 2, 6, 8), np.array([1, 1, 0.5, 0.75], np.float32)], {"mode": "linear"}),
    Case("BatchNormalization", 7, [_x(2, 3, 4, 4), _x(3), _x(3), _x(3), np.abs(_x(3))], {"epsilon": 1e-3}),
    Case("BatchNormalization", 9, [_x(2, 3, 5), _x(3), _x(3), _x(3), np.abs(_x(3))]),
    Case("Dropout", 7, [_x(2, 3)], {"ratio": 0.5}),
    Case("Dropout", 10, [_x(2, 3)]),
    Case("TopK", 7, [_x(3, 8)], {"axis": 1, "k": 3}, outputs=2),
    Case("TopK", 10, [_x(3, 8), _i(4)], {"axis": -1}, outputs=2),
    Case("AveragePool", 7, [_x(1, 2, 7, 8)], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case(
        "AveragePool",
        10,
        [_x(1, 2, 7, 8)],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    ),
    Case("AveragePool", 11, [_x(1, 2, 7, 8)], {"kernel_shape": [3, 3], "count_include_pad": 1, "pads": [0, 1, 2, 0]}),
    Case("AveragePool", 11, [_x(1, 2, 7, 8)], {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("MaxPool", 8, [_x(1, 2, 7, 8)], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    Case("MaxPool", 8, [_x(1, 2, 7, 8)], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case(
        "MaxPool",
        10,
        [_x(1, 2, 7, 8)],
        {"kernel_shape": [2, 3], "dilations": [2, 2], "ceil_mode": 1, "strides": [3, 2]},
    ),
    Case("LpPool", 11, [_x(1, 2, 7, 8)], {"kernel_shape": [2, 3], "p": 3}),
    Case("GlobalLpPool", 7, [_x(2, 3, 4, 5)], {"p": 2}),
    Case("GlobalLpPool", 7, [_x(2, 3, 4, 5)], {"p": 3}),
    Case("Scatter", 9, [_x(3, 4), np.array([[0, 2, 1, 1]]), _x(1, 4)], {"axis": 0}),
    Case("Gemm", 7, [_x(3, 4), _x(5, 4), _x(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", 9, [_x(4, 3), _x(4, 5), _x(3, 1)], {"transA": 1}),
    Case("Pow", 7, [np.abs(_x(3, 4)), _f(0.5)]),
    Case("Pow", 12, [_x(3, 4), np.array(3, np.int32)]),
    Case("Mod", 10, [_x(3, 4), np.abs(_x(3, 4)) + 0.5], {"fmod": 1}),
    Case("ThresholdedRelu", 10, [_x(3, 9)], {"alpha": 0.4}),
    Case("HardSigmoid", 7, [_x(3, 9)], {"alpha": 0.3}),
    Case("PRelu", 7, [_x(2, 3, 4), _x(3, 1)]),
    Case("InstanceNormalization", 7, [_x(2, 3, 4, 4), _x(3), _x(3)]),
    Case("LRN", 7, [_x(2, 6, 3, 3)], {"size": 5, "alpha": 0.1, "beta": 0.6, "bias": 1.5}),
    Case("ArgMax", 7, [_x(3, 5)], {"axis": 1, "keepdims": 0}),
    Case("ArgMin", 11, [_x(3, 5)], {"axis": -1}),
    Case("Flatten", 9, [_x(2, 3, 4)], {"axis": 2}),
    Case("Cast", 9, [_x(3, 5) * 10], {"to": int(onnx.TensorProto.INT32)}),
    Case("GroupNormalization", 18, [_x(2, 6, 4, 4), _x(3), _x(3)], {"num_groups": 3}),
    Case("QuantizeLinear", 10, [_x(3, 9), _f(0.02), np.uint8(110)], quantum=1.0),
    Case("QuantizeLinear", 13, [_x(3, 4, 5), np.abs(_x(4)) + 0.01, np.zeros(4, np.int8)], {"axis": 1}, quantum=1.0),
    Case("DequantizeLinear", 10, [_u8(3, 9), _f(0.02), np.uint8(110)]),
    Case("DynamicQuantizeLinear", 11, [_x(3, 9)], outputs=3, quantum=1.0),
    Case("Trilu", 14, [_x(2, 4, 5), _i(1)], {"upper": 0}),
    Case("CastLike", 15, [_x(3, 4), _x(1)]),
    # Convolutions in all their paddings.
    *(
        Case("Conv", opset, _CONV, {"auto_pad": pad, "strides": [2, 2]})
        for opset in (7, 11)
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", 11, _CONV, {"pads": [0, 1, 2, 3], "dilations": [2, 1]}),
    Case("Conv", 11, [_x(2, 4, 9), _x(6, 2, 3)], {"group": 2, "pads": [1, 1]}),
    Case("Conv", 11, [_x(1, 2, 4, 5, 6), _x(3, 2, 2, 2, 2), _x(3)], {"strides": [1, 2, 2]}),
    Case(
        "ConvTranspose",
        11,
        [_x(2, 3, 5, 6), _x(3, 4, 3, 3), _x(4)],
        {"strides": [2, 2], "pads": [1, 0, 1, 2], "output_padding": [1, 1]},
    ),
    Case(
        "ConvTranspose", 11, [_x(2, 4, 5, 6), _x(4, 3, 3, 3)], {"strides": [2, 2], "group": 2, "output_shape": [10, 12]}
    ),
    *(
        Case("ConvTranspose", 11, [_x(1, 2, 4, 4), _x(2, 3, 3, 3)], {"strides": [2, 2], "auto_pad": pad})
        for pad in ("SAME_UPPER", "SAME_LOWER")
    ),
    Case("ConvTranspose", 11, [_x(1, 2, 9), _x(2, 3, 3)], {"dilations": [2]}),
    # ONNX Runtime's own domain.
    Case("Gelu", 17, [_x(3, 9)], domain=MICROSOFT),
    Case("FastGelu", 17, [_x(3, 9), _x(9)], domain=MICROSOFT),
    Case("BiasGelu", 17, [_x(3, 9), _x(9)], domain=MICROSOFT),
    Case("QuickGelu", 17, [_x(3, 9)], {"alpha": 1.5}, domain=MICROSOFT),
    *(
        Case("FusedConv", 17, [*_CONV, *extra], {"activation": name, "pads": [1, 1, 1, 1], **more}, domain=MICROSOFT)
        for name, more in (
            ("Relu", {}),
            ("Tanh", {}),
            ("Sigmoid", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("Clip", {"activation_params": [-0.3, 0.6]}),
            ("HardSigmoid", {"activation_params": [0.3, 0.4]}),
        )
        for extra in ([], [_x(2, 4, 7, 8)])
        if name == "Relu" or not extra
    ),
    *(
        Case(
            "FusedGemm",
            17,
            [_x(3, 4), _x(5, 4), _x(5)],
            {"activation": name, "transB": 1, "alpha": 0.5, **more},
            domain=MICROSOFT,
        )
        for name, more in (("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.3}))
    ),
    Case("FusedMatMul", 17, [_x(2, 4, 3), _x(2, 4, 5)], {"transA": 1, "alpha": 0.25}, domain=MICROSOFT),
    Case("FusedMatMul", 17, [_x(2, 3, 4), _x(2, 5, 4)], {"transB": 1}, domain=MICROSOFT),
    Case("QuantizeLinear", 17, [_x(3, 9), _f(0.02), np.uint8(110)], **_Q),
    Case("DequantizeLinear", 17, [_u8(3, 9), _f(0.02), np.uint8(110)], domain=MICROSOFT),
    Case("QLinearAdd", 17, _QUANTISED, **_Q),
    Case("QLinearMul", 17, _QUANTISED, **_Q),
    Case(
        "QLinearGlobalAveragePool",
        17,
        [_u8(2, 3, 5, 5), _f(0.02), np.uint8(120), _f(0.01), np.uint8(128)],
        {"channels_last": 0},
        **_Q,
    ),
    Case(
        "QLinearConv",
        10,
        [
            _u8(1, 3, 6, 6),
            _f(0.02),
            np.uint8(120),
            _u8(4, 3, 3, 3),
            _f(0.03),
            np.uint8(100),
            _f(0.5),
            np.uint8(128),
            _random.integers(-500, 500, 4).astype(np.int32),
        ],
        {"pads": [1, 1, 1, 1]},
        quantum=1.0,
    ),
)
