"""Normalisations and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op


@op("BatchNormalization")
def _batch_norm(node: Node) -> Function:
    if node.attr("training_mode", 0) or (node.opset < 14 and node.outputs > 1):
        raise node.refuse("training mode")
    if node.attr("spatial", 1) != 1:
        raise node.refuse("spatial = 0")
    epsilon = node.attr("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return run


@op("InstanceNormalization")
def _instance_norm(node: Node) -> Function:
    epsilon = node.attr("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        axes = tuple(range(2, x.dim()))
        return _per_channel(_standardise(x, axes, epsilon), scale, bias)

    return run


def _standardise(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, dim=tuple(axes), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def _per_channel(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    return x * scale.reshape(shape) + bias.reshape(shape)


@op("GroupNormalization", last=20)
def _group_norm_old(node: Node) -> Function:
    groups, epsilon = node.required("num_groups"), node.attr("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:  # scale and bias per group
        normal = F.group_norm(x, groups, None, None, epsilon)
        each = x.shape[1] // groups
        return _per_channel(normal, scale.repeat_interleave(each), bias.repeat_interleave(each))

    return run


@op("GroupNormalization", first=21)
def _group_norm(node: Node) -> Function:
    groups, epsilon = node.required("num_groups"), node.attr("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, groups, scale, bias, epsilon)


@op("LayerNormalization")
def _layer_norm(node: Node) -> Function:
    axis, epsilon = node.attr("axis", -1), node.attr("epsilon", 1e-5)
    with_statistics = node.outputs > 1

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        axes = tuple(range(axis % x.dim(), x.dim()))
        shape = tuple(x.shape[at] for at in axes)
        if not with_statistics:
            fits = tuple(scale.shape) == shape and (bias is None or tuple(bias.shape) == shape)
            if fits:
                return F.layer_norm(x, shape, scale, bias, epsilon)
            result = F.layer_norm(x, shape, None, None, epsilon) * scale
            return result if bias is None else result + bias
        variance, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + epsilon)
        result = (x - mean) * inverse * scale
        return (result if bias is None else result + bias), mean, inverse

    return run


@op("RMSNormalization")
def _rms_norm(node: Node) -> Function:
    axis, epsilon = node.attr("axis", -1), node.attr("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt(torch.mean(x * x, dim=axes, keepdim=True) + epsilon) * scale

    return run


@op("LpNormalization")
def _lp_norm(node: Node) -> Function:
    axis, power = node.attr("axis", -1), node.attr("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, ord=power, dim=axis, keepdim=True)
        safe = torch.where(norm == 0, torch.ones((), dtype=x.dtype, device=x.device), norm)
        return x / safe  # a zero vector stays zero

    return run


@op("MeanVarianceNormalization")
def _mvn(node: Node) -> Function:
    axes = node.attr("axes", [0, 2, 3])
    return lambda x: _mvn_formula(x, axes)


def _mvn_formula(x: Tensor, axes: Sequence[int]) -> Tensor:
    variance, mean = torch.var_mean(x, dim=tuple(axes), correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)  # the specification's own epsilon


@op("LRN")
def _lrn(node: Node) -> Function:
    size, alpha = node.required("size"), node.attr("alpha", 1e-4)
    beta, bias = node.attr("beta", 0.75), node.attr("bias", 1.0)
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)

    def run(x: Tensor) -> Tensor:
        squares = torch.square(x).flatten(2).unsqueeze(1)
        padded = F.pad(squares, (0, 0, before, after))
        total = F.avg_pool2d(padded, (size, 1), stride=1) * size
        return x / torch.pow(bias + alpha / size * total.reshape(x.shape), beta)

    return run


def _hardmax(x: Tensor, dim: int) -> Tensor:
    first = torch.argmax(x, dim=dim, keepdim=True)
    return torch.zeros_like(x).scatter(dim, first, 1.0)


_SOFTMAX: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": lambda x, axis: torch.softmax(x, dim=axis),
    "LogSoftmax": lambda x, axis: torch.log_softmax(x, dim=axis),
    "Hardmax": _hardmax,
}


@op(*_SOFTMAX, last=12)
def _softmax_2d(node: Node) -> Function:
    """Before operator set 13 the input is seen as a matrix: axes from `axis` on are one."""
    function, axis = _SOFTMAX[node.op_type], node.attr("axis", 1)

    def run(x: Tensor) -> Tensor:
        start = axis % x.dim()
        if start == x.dim() - 1:
            return function(x, -1)
        return function(x.flatten(start), -1).reshape(x.shape)

    return run


@op(*_SOFTMAX, first=13)
def _softmax(node: Node) -> Function:
    function, axis = _SOFTMAX[node.op_type], node.attr("axis", -1)
    return lambda x: function(x, axis)
