"""Operators that draw random numbers; their distributions are the specification's, their numbers are torch's own."""

from __future__ import annotations

import torch
from torch import Tensor

from jr_onnx.torchnet.draw import Draw, Drawing
from jr_onnx.torchnet.registry import Function, Node, op

_FLOAT, _INT32 = 1, 6


def _prototype(node: Node, default: int | None = _FLOAT) -> Tensor | None:
    """Return an empty tensor of the type that the node asks for; None for that of its input."""
    wanted = node.attr("dtype", default)
    return None if wanted is None else torch.empty(0, dtype=node.dtype(int(wanted)))


@op("RandomNormal", "RandomUniform")
def _of_shape(node: Node) -> Function:
    shape, like = [int(size) for size in node.ints("shape") or ()], _prototype(node)
    return Drawing(lambda draw: _drawn(node, draw, shape, like))


@op("RandomNormalLike", "RandomUniformLike")
def _of_the_shape_of(node: Node) -> Function:
    wanted = _prototype(node, None)

    def run(draw: Draw, x: Tensor) -> Tensor:
        like = x if wanted is None else wanted.to(x.device)
        return _drawn(node, draw, x.shape, like)

    return Drawing(run)


def _drawn(node: Node, draw: Draw, shape: list[int] | torch.Size, like: Tensor | None) -> Tensor:
    like = torch.empty(0) if like is None else like
    if node.op_type.startswith("RandomNormal"):
        return draw.normal(shape, float(node.attr("mean", 0.0)), float(node.attr("scale", 1.0)), like)
    return draw.uniform(shape, float(node.attr("low", 0.0)), float(node.attr("high", 1.0)), like)


@op("Bernoulli")
def _bernoulli(node: Node) -> Function:
    """Bernoulli as its function body in the specification has it, and so ONNX Runtime: 1 where U[0, 1) > p.

    That is with probability 1 - p, not p as its text says. An attack is about what is served.
    """
    wanted = _prototype(node, None)

    def run(draw: Draw, x: Tensor) -> Tensor:
        return draw.coins(1 - x).to(x.dtype if wanted is None else wanted.dtype)

    return Drawing(run)


@op("Multinomial")
def _multinomial(node: Node) -> Function:
    count, like = int(node.attr("sample_size", 1)), _prototype(node, _INT32)
    dtype = torch.int32 if like is None else like.dtype
    return Drawing(lambda draw, x: draw.classes(x, count).to(dtype))


@op("Dropout")
def _dropout(node: Node) -> Function:
    """Dropout: nothing unless it is in training mode (operator set 12 and later), where it draws a mask."""
    training = node.const(2)
    if node.has(2) and training is None:
        raise node.refuse("training_mode is not constant")
    if training is None or not bool(training):
        if node.outputs > 1:
            return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
        return lambda x, *_: x

    def run(draw: Draw, x: Tensor, ratio: Tensor | None = None, *_: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        share = 0.5 if ratio is None else float(ratio.reshape(()))
        if draw.take_mean or share == 0:
            kept, result = torch.ones_like(x, dtype=torch.bool), x
        else:
            kept = draw.coins(torch.full_like(x.detach(), 1.0 - share))
            result = torch.where(kept, x / (1.0 - share), torch.zeros((), dtype=x.dtype, device=x.device))
        return (result, kept) if node.outputs > 1 else result

    return Drawing(run)
