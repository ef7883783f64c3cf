"""Quantised arithmetic with straight-through rounding.

A quantised value is carried as a *floating* tensor of whole numbers, so that gradients pass: rounding has derivative
one, saturation zero outside its range (the usual straight-through estimator). The forward values are those of the
integers. Sums that may leave float32's 24 exact bits are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from jr_onnx.element_types import type_name
from jr_onnx.torchnet.dtypes import FLOATS, INTEGER_RANGES
from jr_onnx.torchnet.ops.conv import convolution
from jr_onnx.torchnet.registry import MICROSOFT, Function, Node, op

_EXACT_FLOAT32 = 2**24


class _Round(torch.autograd.Function):
    """Round half to even; the derivative passes straight through."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: the derivative is one."""
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        return grads[0]


def straight_round(x: Tensor) -> Tensor:
    """Round half to even with a straight-through derivative."""
    result: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call] # torch has no types here
    return result


def _float(x: Tensor, like: Tensor | None = None) -> Tensor:
    if x.is_floating_point():
        return x
    return x.to(like.dtype if like is not None and like.is_floating_point() else torch.float32)


def _range_of(node: Node, index: int, fallback: int) -> tuple[int, int]:
    """Return the range of the quantised type an input has."""
    element_type = node.element_type(index) or fallback
    if element_type not in INTEGER_RANGES:
        raise node.refuse(f"quantised type {type_name(element_type)}")
    return INTEGER_RANGES[element_type]


def _along(scale: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Lay a scale or zero point out against the tensor: one value, one per channel, or one per block."""
    if scale.dim() == 0 or scale.numel() == 1:
        return scale.reshape(())
    if block:
        return scale.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return scale.reshape(shape)


def _saturate(x: Tensor, bounds: tuple[int, int]) -> Tensor:
    return torch.clamp(x, bounds[0], bounds[1])


@op("QuantizeLinear")
@op("QuantizeLinear", domain=MICROSOFT)
def _quantize(node: Node) -> Function:
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    bounds = _range_of(node, 2, node.attr("output_dtype", 0) or TensorProto.UINT8)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        values = _float(x, scale)
        steps = straight_round(values / _along(scale, x, axis, block).to(values.dtype))
        if zero is not None:
            steps = steps + _along(_float(zero, values), x, axis, block)
        return _saturate(steps, bounds)

    return run


@op("DequantizeLinear")
@op("DequantizeLinear", domain=MICROSOFT)
def _dequantize(node: Node) -> Function:
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    if node.element_type(0) and node.element_type(0) not in INTEGER_RANGES and node.element_type(0) not in FLOATS:
        raise node.refuse(f"quantised type {type_name(node.element_type(0))}")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        values = x.to(scale.dtype)
        if zero is not None:
            values = values - _along(zero.to(scale.dtype), x, axis, block)
        return values * _along(scale, x, axis, block)

    return run


@op("DynamicQuantizeLinear")
def _dynamic_quantize(node: Node) -> Function:
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = torch.clamp(x.amin(), max=0.0), torch.clamp(x.amax(), min=0.0)
        scale = (high - low) / 255.0
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = _saturate(straight_round(-low / scale), (0, 255))
        return _saturate(straight_round(x / scale) + zero, (0, 255)), scale, zero

    return run


def _exact(x: Tensor, fan_in: int) -> torch.dtype:
    """Return a type that holds a sum of `fan_in` products of 8-bit values exactly."""
    return torch.float64 if fan_in * 255 * 255 > _EXACT_FLOAT32 else torch.promote_types(x.dtype, torch.float32)


def _channels(value: Tensor, rank: int) -> Tensor:
    """Lay a per-output-channel value out against a (M, ...) weight."""
    return value.reshape(-1, *[1] * (rank - 1)) if value.dim() else value


def _integer_conv(
    x: Tensor, w: Tensor, zeros: tuple[Tensor | None, Tensor | None], conv: Callable[..., Tensor]
) -> Tensor:
    dtype = _exact(_float(x), w[0].numel())
    left, right = x.to(dtype), w.to(dtype)
    if zeros[0] is not None:
        left = left - zeros[0].to(dtype)
    if zeros[1] is not None:
        right = right - _channels(zeros[1].to(dtype), w.dim())
    return conv(left, right)


@op("ConvInteger")
def _conv_integer(node: Node) -> Function:
    conv = convolution(node)
    return lambda x, w, x_zero=None, w_zero=None: _integer_conv(x, w, (x_zero, w_zero), conv)


@op("QLinearConv")
def _qlinear_conv(node: Node) -> Function:
    conv = convolution(node, weight_input=3)
    bounds = _range_of(node, 7, TensorProto.UINT8)

    def run(  # the operator has nine inputs
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor,
        w: Tensor,
        w_scale: Tensor,
        w_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        total = _integer_conv(x, w, (x_zero, w_zero), conv)
        if bias is not None:
            total = total + bias.to(total.dtype).reshape(-1, *[1] * (total.dim() - 2))
        factor = x_scale * w_scale / y_scale
        if factor.dim():
            factor = factor.reshape(-1, *[1] * (total.dim() - 2))
        steps = straight_round(total * factor) + y_zero.to(total.dtype)
        return _saturate(steps, bounds).to(x_scale.dtype)

    return run


@op("MatMulInteger")
def _matmul_integer(node: Node) -> Function:
    return lambda a, b, a_zero=None, b_zero=None: _integer_matmul(a, b, a_zero, b_zero)


def _integer_matmul(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    dtype = _exact(_float(a), a.shape[-1])
    left, right = a.to(dtype), b.to(dtype)
    if a_zero is not None:
        rows = a_zero.to(dtype)
        left = left - (rows.unsqueeze(-1) if rows.dim() == 1 and rows.numel() > 1 else rows)
    if b_zero is not None:
        right = right - b_zero.to(dtype)
    return left @ right


@op("QLinearMatMul")
def _qlinear_matmul(node: Node) -> Function:
    bounds = _range_of(node, 7, TensorProto.UINT8)

    def run(  # the operator has eight inputs
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
    ) -> Tensor:
        total = _integer_matmul(a, b, a_zero, b_zero)
        factor = a_scale * b_scale / y_scale
        steps = straight_round(total * factor) + y_zero.to(total.dtype)
        return _saturate(steps, bounds).to(a_scale.dtype)

    return run


def _requantize(values: Tensor, scale: Tensor, zero: Tensor | None, bounds: tuple[int, int]) -> Tensor:
    steps = straight_round(values / scale)
    return _saturate(steps if zero is None else steps + zero.to(steps.dtype), bounds)


def _real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    values = x.to(scale.dtype)
    return (values if zero is None else values - zero.to(scale.dtype)) * scale


@op("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def _qlinear_binary(node: Node) -> Function:
    function = torch.add if node.op_type == "QLinearAdd" else torch.mul
    bounds = _range_of(node, 7, TensorProto.UINT8)

    def run(  # the operator has eight inputs
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        return _requantize(function(_real(a, a_scale, a_zero), _real(b, b_scale, b_zero)), y_scale, y_zero, bounds)

    return run


@op("QLinearGlobalAveragePool", domain=MICROSOFT)
def _qlinear_global_average(node: Node) -> Function:
    bounds = _range_of(node, 4, TensorProto.UINT8)
    channels_last = bool(node.attr("channels_last", 0))

    def run(x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor) -> Tensor:
        axes = tuple(range(1, x.dim() - 1)) if channels_last else tuple(range(2, x.dim()))
        mean = _real(x, x_scale, x_zero).mean(dim=axes, keepdim=True)
        return _requantize(mean, y_scale, y_zero, bounds)

    return run
