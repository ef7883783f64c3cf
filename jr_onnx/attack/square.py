"""Square: random search with squares, a black-box attack (Andriushchenko et al., 2020).

It asks for logits alone, so that it runs on ONNX Runtime as well. Each query proposes one square of the image, at a
random place, and keeps it where the margin of the label falls. The side of the squares shrinks over the queries.
L-infinity sets the square to +-eps per channel; L2 moves the energy of one square into another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.attack.base import Attack, Problem
from jr_onnx.attack.norms import Ball, Norm, expand, lengths
from jr_onnx.attack.objectives import margin

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries out of 10,000 at which the share of a square halves (section 5.1 of the paper)."""

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack.

    Attributes:
        eps: Radius of the ball.
        queries: Queries per sample.
        first_share: Share of the image that the first squares cover.
        eot: Runs of a random model that each query averages.
    """

    name: ClassVar[str] = "square"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    needs_gradient: ClassVar[bool] = False

    eps: float = 8 / 255
    queries: int = 1000
    first_share: float = 0.8
    eot: int = 1

    @property
    def draws(self) -> int:
        """How many runs of a random model each query averages."""
        return self.eot

    @property
    def radius(self) -> float | None:
        """Radius of the ball."""
        return self.eps

    def _search(self, problem: Problem) -> Tensor:
        result = problem.images.clone()
        rows, best, loss = problem.rows, problem.images, None
        ball = Ball(problem.images, self.eps, self.norm, problem.low, problem.high)
        for query in range(self.queries):
            trial = ball.project(self._propose(problem, rows, best, query))
            logits = problem.oracle.logits(trial, rows)
            problem.iterations[rows] += 1
            won = problem.won(logits, rows)
            result[rows[won]] = trial[won]
            value = margin(logits, problem.aim[rows])
            value = torch.where(torch.isfinite(value), value, float("-inf"))
            if loss is None:
                best, loss = trial, value
            else:
                better = value > loss
                best = torch.where(expand(better, best), trial, best)
                loss = torch.where(better, value, loss)
            if bool(won.any()):
                rows, best, loss, ball = rows[~won], best[~won], loss[~won], ball.select(~won)
                if len(rows) == 0:
                    return result
        result[rows] = best
        return result

    def _propose(self, problem: Problem, rows: Tensor, best: Tensor, query: int) -> Tensor:
        """Return the next points to try (m, C, H, W), before projection."""
        images = problem.images[rows]
        channels, height, width = images.shape[1:]
        # Two places, and two sets of signs: more than either norm needs, and the same number for both.
        draws = problem.noise.uniform("square", problem.indices_of(rows), 4 + 2 * channels, query)
        if self.norm == "linf":
            return self._stripes(problem, rows, images) if query == 0 else self._square(images, best, draws, query)
        if query == 0:
            return images + self._tiles(problem, rows, images)
        delta = _move_energy(best - images, draws, self._side(query, height, width, least=3), self.eps)
        return images + delta * expand(self.eps / lengths(delta, "l2").clamp_min(1e-12), delta)

    def _side(self, query: int, height: int, width: int, least: int) -> int:
        """Return the side of the squares of a query."""
        scaled = query * 10_000 / self.queries
        share = self.first_share / 2 ** sum(scaled > bound for bound in _HALVINGS)
        side = max(round(math.sqrt(share * height * width)), least)
        if least == 3 and side % 2 == 0:
            side += 1
        return min(side, height, width)

    def _stripes(self, problem: Problem, rows: Tensor, images: Tensor) -> Tensor:
        """Start from vertical stripes of +-eps (section 4.1)."""
        channels, _, width = images.shape[1:]
        draws = problem.noise.uniform("square stripes", problem.indices_of(rows), channels * width)
        return images + self.eps * _signs(draws, images).view(-1, channels, 1, width)

    def _square(self, images: Tensor, best: Tensor, draws: Draws, query: int) -> Tensor:
        """Set one square per sample to +-eps around the clean image, a sign per channel."""
        channels, height, width = images.shape[1:]
        side = self._side(query, height, width, least=1)
        at = _window(draws[:, :2], side, images)
        sign = _signs(draws[:, 4 : 4 + channels], images)
        trial = best.clone()
        trial[at] = images[at] + self.eps * sign[:, None, None, :]
        return trial

    def _tiles(self, problem: Problem, rows: Tensor, images: Tensor) -> Tensor:
        """Start from a grid of bumps of random sign, of length eps together (section 4.2)."""
        channels, height, width = images.shape[1:]
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        draws = problem.noise.uniform("square tiles", problem.indices_of(rows), channels * down * across)
        sign = _signs(draws, images).view(-1, channels, down, across)
        delta = torch.zeros_like(images)
        tiled = sign.repeat_interleave(side, 2).repeat_interleave(side, 3) * _bump(side, images).repeat(down, across)
        delta[:, :, : down * side, : across * side] = tiled
        return delta * expand(self.eps / lengths(delta, "l2").clamp_min(1e-12), delta)


def _move_energy(delta: Tensor, draws: Draws, side: int, eps: float) -> Tensor:
    """Empty one window and pour its energy, and what is left of the budget, into another (section 4.2)."""
    channels = delta.shape[1]
    into, out_of = _window(draws[:, :2], side, delta), _window(draws[:, 2:4], side, delta)
    both = torch.zeros_like(delta)
    both[into] = 1.0
    both[out_of] = 1.0
    energy = (delta * both).square().sum((2, 3))
    unused = (eps**2 - delta.flatten(1).square().sum(1)).clamp_min(0)
    old = delta[into]  # (m, side, side, C)
    old = old / (1e-12 + old.square().sum((1, 2), keepdim=True).sqrt())
    sign = _signs(draws[:, 4 : 4 + channels], delta)
    fresh = _bump(side, delta)[None, :, :, None] * sign[:, None, None, :] + old
    fresh = fresh / (1e-12 + fresh.square().sum((1, 2), keepdim=True).sqrt())
    size = (unused[:, None] / channels + energy).sqrt()
    moved = delta.clone()
    moved[out_of] = 0.0
    moved[into] = fresh * size[:, None, None, :]
    return moved


def _window(places: Draws, side: int, like: Tensor) -> tuple[Tensor, slice, Tensor, Tensor]:
    """Return an index of one square per sample; indexing with it gives (m, side, side, C)."""
    height, width = like.shape[2:]
    corner = torch.from_numpy(places).to(like.device)
    top = (corner[:, 0] * (height - side + 1)).long()[:, None, None]
    left = (corner[:, 1] * (width - side + 1)).long()[:, None, None]
    steps = torch.arange(side, device=like.device)
    samples = torch.arange(len(like), device=like.device)[:, None, None]
    return samples, slice(None), top + steps[None, :, None], left + steps[None, None, :]


def _signs(draws: Draws, like: Tensor) -> Tensor:
    """Turn draws of [0, 1) into signs."""
    return torch.where(torch.from_numpy(draws).to(like.device) < 0.5, -1.0, 1.0).to(like.dtype)


def _bump(side: int, like: Tensor) -> Tensor:
    """Return a pattern (side, side) of unit length: rings of falling weight in one half, the negative in the other."""
    half = side // 2
    if side == 1:
        return torch.ones(1, 1, dtype=like.dtype, device=like.device)
    pattern = torch.zeros(side, side, dtype=torch.float64)
    pattern[:half] = _rings(half, side)
    pattern[half:] = -_rings(side - half, side)
    if side % 2 == 0 or half % 2 == 1:
        pattern = pattern.T.contiguous()
    unit: Tensor = pattern / pattern.square().sum().sqrt()
    return unit.to(dtype=like.dtype, device=like.device)


def _rings(height: int, width: int) -> Tensor:
    """Add up concentric rectangles, the smaller ones with more weight: 1 / (k + 1)^2 for the k-th from the middle."""
    pattern = torch.zeros(height, width, dtype=torch.float64)
    top, left, count = (height - 1) // 2, (width - 1) // 2, max(height, width)
    for ring in range(count // 2 + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        pattern[rows, columns] += 1.0 / (ring + 1) ** 2
    return pattern
