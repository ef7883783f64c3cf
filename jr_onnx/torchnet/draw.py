"""Random numbers that a model draws by itself, in torch: independent of ONNX Runtime's, and repeatable by a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draw:
    """Where the random numbers of one forward pass come from.

    Attributes:
        generator: On the CPU, so that a key means the same on every device; None for torch's global one.
        take_mean: Draw nothing: take the mean of what would be drawn, so that two runs agree.
    """

    generator: torch.Generator | None = None
    take_mean: bool = False

    def normal(self, shape: Sequence[int], mean: float, scale: float, like: Tensor) -> Tensor:
        """Return N(mean, scale^2), of the type and on the device of `like`."""
        if self.take_mean:
            return torch.full(tuple(shape), mean, dtype=like.dtype, device=like.device)
        return self._to(torch.randn(tuple(shape), generator=self.generator) * scale + mean, like)

    def uniform(self, shape: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
        """Return U[low, high), of the type and on the device of `like`."""
        if self.take_mean:
            return torch.full(tuple(shape), (low + high) / 2, dtype=like.dtype, device=like.device)
        return self._to(torch.rand(tuple(shape), generator=self.generator) * (high - low) + low, like)

    def coins(self, chance: Tensor) -> Tensor:
        """Return True with a chance per element; drawing nothing, where it is above one half."""
        if self.take_mean:
            return chance > 0.5
        return torch.rand(chance.shape, generator=self.generator).to(chance.device) < chance

    def classes(self, logits: Tensor, count: int) -> Tensor:
        """Return `count` classes (N, count) per row of log probabilities (N, K); drawing nothing, the likeliest."""
        if self.take_mean:
            return logits.argmax(1, keepdim=True).expand(-1, count)
        shares = logits.detach().float().softmax(1).cpu()
        return torch.multinomial(shares, count, replacement=True, generator=self.generator).to(logits.device)

    @staticmethod
    def _to(drawn: Tensor, like: Tensor) -> Tensor:
        return drawn.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The function of an operator that draws: it takes a `Draw` before its inputs."""

    run: Callable[..., Tensor | Sequence[Tensor]]

    def __call__(self, *_: object) -> Tensor:
        """Refuse to run as an ordinary operator does."""
        raise TypeError("an operator that draws random numbers needs a Draw")
