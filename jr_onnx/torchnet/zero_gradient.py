"""A gradient of zero for logits that do not depend differentiably on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def with_zero_gradient(logits: Tensor, x: Tensor) -> Tensor:
    """Return the logits (N, K) with a gradient of zero with respect to `x`, instead of none."""
    result: Tensor = _ZeroGradient.apply(logits, x)  # type: ignore[no-untyped-call] # torch has no types here
    return result


class _ZeroGradient(torch.autograd.Function):
    """Return the first argument, with a gradient of zero in the second."""

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        del x
        return logits.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the input's shape."""
        del output
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        return grads[0], torch.zeros_like(x)
