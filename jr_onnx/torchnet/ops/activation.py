"""Activation functions that are not retrofit sites themselves (a site's forward pass is in `jump`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.registry import MICROSOFT, Function, Node, op

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Relu": torch.relu,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
}
_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875


@op(*_PLAIN)
def _plain(node: Node) -> Function:
    return _PLAIN[node.op_type]


@op("LeakyRelu")
def _leaky_relu(node: Node) -> Function:
    slope = node.attr("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@op("PRelu")
def _prelu(node: Node) -> Function:
    return lambda x, slope: torch.where(x < 0, slope * x, x)


@op("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros((), dtype=x.dtype, device=x.device))


@op("Elu")
def _elu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@op("Celu")
def _celu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@op("Selu")
def _selu(node: Node) -> Function:
    alpha, gamma = node.attr("alpha", _SELU_ALPHA), node.attr("gamma", _SELU_GAMMA)
    return lambda x: gamma * F.elu(x, alpha)


@op("HardSigmoid")
def _hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@op("Gelu")
def _gelu(node: Node) -> Function:
    approximate = node.attr("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@op("Swish")
def _swish(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return F.silu if alpha == 1.0 else (lambda x: x * torch.sigmoid(alpha * x))


@op("Shrink")
def _shrink(node: Node) -> Function:
    bias, limit = node.attr("bias", 0.0), node.attr("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero)).to(x.dtype)

    return run


@op("Clip", last=10)
def _clip_attributes(node: Node) -> Function:
    low, high = node.attr("min", -math.inf), node.attr("max", math.inf)
    return lambda x: torch.clamp(x, low, high)


@op("Clip", first=11)
def _clip(node: Node) -> Function:
    low, high = node.const(1), node.const(2)
    if (low is None) == node.has(1) or (high is None) == node.has(2):

        def run(x: Tensor, minimum: Tensor | None = None, maximum: Tensor | None = None) -> Tensor:
            result = x if minimum is None else torch.maximum(x, minimum)
            return result if maximum is None else torch.minimum(result, maximum)

        return run
    bottom = None if low is None else low.item()
    top = None if high is None else high.item()
    if bottom is None and top is None:
        return lambda x, *_: x
    return lambda x, *_: torch.clamp(x, bottom, top)


@op("Gelu", domain=MICROSOFT)
def _gelu_contrib(node: Node) -> Function:
    return F.gelu


@op("FastGelu", domain=MICROSOFT)
def _fast_gelu(node: Node) -> Function:
    def run(x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.gelu(x if bias is None else x + bias, approximate="tanh")

    return run


@op("BiasGelu", domain=MICROSOFT)
def _bias_gelu(node: Node) -> Function:
    return lambda x, bias: F.gelu(x + bias)


@op("QuickGelu", domain=MICROSOFT)
def _quick_gelu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.702)
    return lambda x: x * torch.sigmoid(alpha * x)
