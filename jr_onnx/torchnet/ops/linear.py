"""Matrix products: Gemm, MatMul and Einsum."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op


def gemm(node: Node) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return alpha * A' @ B' + beta * C as a function of A, B and C; shared with the fused form."""
    trans_a, trans_b = node.attr("transA", 0), node.attr("transB", 0)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    plain = alpha == 1.0 and beta == 1.0 and not trans_a

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if plain and (c is None or (c.dim() == 1 and c.shape[0] == b.shape[0 if trans_b else 1])):
            return F.linear(a, b if trans_b else b.t(), c)
        left, right = (a.t() if trans_a else a), (b.t() if trans_b else b)
        product = left @ right
        if alpha != 1.0:
            product = product * alpha
        if c is None:
            return product
        return product + (c if beta == 1.0 else c * beta)

    return run


@op("Gemm")
def _gemm(node: Node) -> Function:
    return gemm(node)


@op("MatMul")
def _matmul(node: Node) -> Function:
    return torch.matmul


@op("Einsum")
def _einsum(node: Node) -> Function:
    equation = node.attr("equation", "").replace(" ", "")
    return lambda *items: torch.einsum(equation, *items)
