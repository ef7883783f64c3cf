"""Fused operators of ONNX Runtime's own domain, as its optimiser writes them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.ops.conv import convolution
from jr_onnx.torchnet.ops.linear import gemm
from jr_onnx.torchnet.registry import MICROSOFT, Function, Node, op


def _activation(name: str, parameters: list[float], node: Node) -> Callable[[Tensor], Tensor]:
    """Return the activation that a fused node ends with."""
    first = parameters[0] if parameters else None
    second = parameters[1] if len(parameters) > 1 else None
    table: dict[str, Callable[[Tensor], Tensor]] = {
        "": lambda x: x,
        "Relu": torch.relu,
        "Tanh": torch.tanh,
        "Sigmoid": torch.sigmoid,
        "LeakyRelu": lambda x: F.leaky_relu(x, 0.01 if first is None else first),
        "Clip": lambda x: torch.clamp(x, -math.inf if first is None else first, math.inf if second is None else second),
        "HardSigmoid": lambda x: torch.clamp(
            (0.2 if first is None else first) * x + (0.5 if second is None else second), 0.0, 1.0
        ),
    }
    if name not in table:
        raise node.refuse(f"activation {name!r}")
    return table[name]


def fused_conv_linear(node: Node) -> Callable[..., Tensor]:
    """Return what a FusedConv computes before its activation: the convolution, plus the summand Z."""
    conv = convolution(node)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        result = conv(x, w, b)
        return result if z is None else result + z

    return run


@op("FusedConv", domain=MICROSOFT)
def _fused_conv(node: Node) -> Function:
    linear = fused_conv_linear(node)
    activation = _activation(node.attr("activation", ""), node.attr("activation_params", []), node)
    return lambda *items: activation(linear(*items))


def fused_gemm_linear(node: Node) -> Function:
    """Return what a FusedGemm computes before its activation."""
    return gemm(node)


@op("FusedGemm", domain=MICROSOFT)
def _fused_gemm(node: Node) -> Function:
    linear = gemm(node)
    given = [node.number(name) for name in ("activation_alpha", "activation_beta")]
    parameters = [value for value in given if value is not None]
    activation = _activation(node.attr("activation", ""), parameters, node)
    return lambda *items: activation(linear(*items))


LINEAR_PARTS: dict[str, Callable[[Node], Function]] = {
    "FusedConv": fused_conv_linear,
    "FusedGemm": fused_gemm_linear,
}
"""Builders of what precedes the activation of a fused retrofit site."""


@op("FusedMatMul", domain=MICROSOFT)
def _fused_matmul(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    trans_a, trans_b = node.attr("transA", 0), node.attr("transB", 0)
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        raise node.refuse("transBatchA or transBatchB")

    def run(a: Tensor, b: Tensor) -> Tensor:
        left = a.transpose(-1, -2) if trans_a and a.dim() > 1 else a
        right = b.transpose(-1, -2) if trans_b and b.dim() > 1 else b
        product = left @ right
        return product if alpha == 1.0 else product * alpha

    return run
