"""Operators that ONNX's reference evaluator lacks or computes wrongly, most of them in the versions of older opsets.

| operator | opset | what the evaluator does without this |
|---|---|---|
| DequantizeLinear | 10 to 18 | it has none |
| BatchNormalization | 7 to 13 | with a momentum it trains; one output means inference |
| LRN | all | it normalises only as many channels as the batch has images |
| Dropout | up to 6 | it has none; with is_test it passes its input on |
| Softmax, LogSoftmax | up to 12 | it takes one axis, where the operator takes all from that axis on (default 1) |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from jr_onnx.element_types import Array
from jr_onnx.opsets import main_opset

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

_DEQUANTIZE_SINCE, _DEQUANTIZE_IN_EVALUATOR = 10, 19
_DROPOUT_IN_EVALUATOR = 7
_SOFTMAX_OF_ONE_AXIS = 13
_NORMALIZATION_SINCE, _NORMALIZATION_WITH_A_MODE = 7, 14


def older_operators(proto: onnx.ModelProto) -> list[type[OpRun]]:
    """Return the operators that the evaluator has to be given for a model."""
    opset = main_opset(proto)
    found: list[type[OpRun]] = []
    if _DEQUANTIZE_SINCE <= opset < _DEQUANTIZE_IN_EVALUATOR:
        found.append(_dequantize())
    if _NORMALIZATION_SINCE <= opset < _NORMALIZATION_WITH_A_MODE and not _trains(proto):
        found.append(_batch_normalization())
    if any(node.op_type == "LRN" for node in proto.graph.node):
        found.append(_lrn())
    if 0 < opset < _DROPOUT_IN_EVALUATOR:
        found.append(_dropout())
    if 0 < opset < _SOFTMAX_OF_ONE_AXIS:
        found += [_of_trailing_axes("Softmax", logarithm=False), _of_trailing_axes("LogSoftmax", logarithm=True)]
    return found


def _dequantize() -> type[OpRun]:
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19

    class DequantizeLinear(DequantizeLinear_19):  # type: ignore[misc, unused-ignore] # older releases have no types here
        op_domain = ""

        # The evaluator hands over the attributes of the newest version, too.
        def _run(self, x: Any, x_scale: Any, x_zero_point: Any = None, axis: Any = None, **_: Any) -> Any:  # type: ignore[override, unused-ignore]
            return super()._run(x, x_scale, x_zero_point, axis=1 if axis is None else axis)

    return DequantizeLinear


def _trains(proto: onnx.ModelProto) -> bool:
    return any(node.op_type == "BatchNormalization" and len(node.output) > 1 for node in proto.graph.node)


def _batch_normalization() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):  # type: ignore[misc, unused-ignore] # as above
        op_domain = ""

        def _run(self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, **_: Any) -> tuple[Any]:
            given = (float(item.f) for item in self.onnx_node.attribute if item.name == "epsilon")
            shape = (1, -1) + (1,) * (x.ndim - 2)
            factor = scale / np.sqrt(variance + np.asarray(next(given, 1e-5), variance.dtype))
            result = (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)
            return (result.astype(x.dtype),)

    return BatchNormalization


def _lrn() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):  # type: ignore[misc, unused-ignore] # as above
        op_domain = ""

        def _run(self, x: Any, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None) -> tuple[Any]:
            squares = np.zeros_like(x)
            for channel in range(x.shape[1]):
                begin, end = max(0, channel - (size - 1) // 2), channel + size // 2 + 1
                squares[:, channel] = np.sum(x[:, begin:end] ** 2, axis=1)
            return ((x / (bias + (alpha / size) * squares) ** beta).astype(x.dtype),)

    return LRN


def _dropout() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class Dropout(OpRun):  # type: ignore[misc, unused-ignore] # as above
        op_domain = ""

        def _run(self, x: Any, **_: Any) -> tuple[Any, ...]:
            if not any(item.name == "is_test" and item.i for item in self.onnx_node.attribute):
                raise NotImplementedError("Dropout in training mode draws random numbers")
            return (x, np.ones_like(x))[: len(self.onnx_node.output)]

    return Dropout


def _of_trailing_axes(name: str, *, logarithm: bool) -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class Operator(OpRun):  # type: ignore[misc, unused-ignore] # as above
        op_domain = ""

        def _run(self, x: Any, **_: Any) -> tuple[Any]:
            # Of the node itself: the evaluator fills in the newest version's default.
            axis = next((int(item.i) for item in self.onnx_node.attribute if item.name == "axis"), 1)
            return (softmax_of_trailing_axes(x, axis, logarithm=logarithm),)

    Operator.__name__ = name
    return Operator


def softmax_of_trailing_axes(x: Array, axis: int, *, logarithm: bool = False) -> Array:
    """Return the softmax, or its logarithm, over all axes from `axis` on together (ONNX, Softmax-1 and -11).

    Args:
        x: Array of any shape.
        axis: The first of the axes; a negative one counts from the end.
        logarithm: Whether to return the logarithm.
    """
    if x.size == 0:
        return x
    first = axis % x.ndim if axis < 0 else axis
    rows = x.reshape(int(np.prod(x.shape[:first], dtype=np.int64)), -1)
    shifted = rows - rows.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    result = shifted - np.log(total) if logarithm else np.exp(shifted) / total
    return np.asarray(result.astype(x.dtype).reshape(x.shape))
