"""Norms, distances and the projection onto a ball cut with the box of valid pixels.

A perturbation is measured per sample over all its entries. Projections are exact in the stored dtype: the norm of
`projected - centre`, evaluated in double precision, never exceeds `eps`, not even by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from jr_onnx.errors import InputError

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
_DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
_SHRINK = 1.0 - 2.0**-20
"""Factor by which an L2 or L1 perturbation is shortened while rounding leaves it too long; float32 has 24 bits."""


def require_norm(norm: str, allowed: tuple[Norm, ...] = NORMS) -> None:
    """Refuse a norm that is not one of `allowed`."""
    if norm not in allowed:
        raise InputError(f"the norm is {norm!r}, expected one of {', '.join(allowed)}")


def lengths(delta: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each sample (N,) of a perturbation (N, ...)."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    size: Tensor = torch.linalg.vector_norm(flat, ord=2 if norm == "l2" else 1, dim=1)
    return size


def dual_lengths(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the dual norm of each sample's gradient: how fast a unit step in `norm` can change a function."""
    return lengths(gradient, _DUAL[norm])


def expand(values: Tensor, like: Tensor) -> Tensor:
    """View one value per sample (N,) so that it broadcasts against `like` (N, ...)."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def distances(adversarials: Tensor, images: Tensor) -> dict[Norm, Tensor]:
    """Measure perturbations in every norm, in double precision.

    Args:
        adversarials: (N, C, H, W).
        images: (N, C, H, W), the clean ones.

    Returns:
        Per norm a float64 tensor (N,).
    """
    delta = adversarials.double() - images.double()
    return {norm: lengths(delta, norm) for norm in NORMS}


def relative_distances(found: Mapping[Norm, Tensor], images: Tensor) -> dict[Norm, Tensor]:
    """Divide distances by the norm of the clean image (paper, eq. 12), per norm.

    An image of norm zero has no relative distance: 0 where it was not moved, infinite where it was.
    """
    result: dict[Norm, Tensor] = {}
    for norm, values in found.items():
        size = lengths(images.double(), norm)
        ratio = values / size.clamp_min(torch.finfo(torch.float64).tiny)
        result[norm] = torch.where(size > 0, ratio, torch.where(values > 0, math.inf, 0.0).to(ratio))
    return result


class Ball:
    """The points within `eps` of each centre that are also valid pixels.

    Attributes:
        lower: Per entry, the least allowed value (exact for L-infinity; the box alone for L2 and L1).
        upper: Per entry, the greatest allowed value.
    """

    def __init__(self, centre: Tensor, eps: float, norm: Norm, low: float, high: float) -> None:
        """Build the ball of radius `eps` around `centre` (N, ...) inside [low, high]."""
        self.centre = centre
        self.eps = eps
        self.norm = norm
        if norm == "linf":
            self.lower = _bound(centre, -eps).clamp_min(low)
            self.upper = _bound(centre, eps).clamp_max(high)
        else:
            self.lower = torch.full_like(centre, low)
            self.upper = torch.full_like(centre, high)

    def select(self, kept: Tensor) -> Ball:
        """Return the balls of some samples, by mask or rows."""
        part = object.__new__(Ball)
        part.centre, part.eps, part.norm = self.centre[kept], self.eps, self.norm
        part.lower, part.upper = self.lower[kept], self.upper[kept]
        return part

    def project(self, x: Tensor) -> Tensor:
        """Move points (N, ...) into the ball; L-infinity works in place.

        L2 scales the perturbation back, L1 projects it onto the ball cut with the box; a non-finite entry stays
        non-finite, for the caller to see.
        """
        if self.norm == "linf":
            return torch.clamp(x, self.lower, self.upper, out=x) if not x.requires_grad else x
        delta = torch.clamp(x, self.lower, self.upper) - self.centre
        if self.norm == "l2":
            size = expand(lengths(delta, "l2"), delta)
            delta = torch.where(size > self.eps, delta * (self.eps / size.clamp_min(1e-30)), delta)
        else:
            delta = project_l1_box(x - self.centre, self.lower - self.centre, self.upper - self.centre, self.eps)
        return torch.clamp(self.centre + delta, self.lower, self.upper)

    def project_exactly(self, x: Tensor) -> Tensor:
        """Project, then shorten until the norm in double precision keeps to `eps`."""
        if self.norm == "linf":
            return torch.clamp(x, self.lower, self.upper)
        result = self.project(x)
        delta = result - self.centre
        for _ in range(64):
            over = lengths(result.double() - self.centre.double(), self.norm) > self.eps
            if not bool(over.any()):
                return result
            delta[over] *= _SHRINK
            result[over] = torch.clamp(self.centre[over] + delta[over], self.lower[over], self.upper[over])
        # Rounding to the grid of the dtype is coarser than eps: only the centre itself is surely inside.
        over = lengths(result.double() - self.centre.double(), self.norm) > self.eps
        result[over] = self.centre[over]
        return result


def project_l1_box(delta: Tensor, lower: Tensor, upper: Tensor, eps: float | Tensor) -> Tensor:
    """Project perturbations onto the L1 ball cut with a box that contains zero (Croce and Hein, 2021, section 3).

    The solution is `clamp(sign(d) * max(|d| - t, 0), lower, upper)` for the least t >= 0 that meets the budget.
    The L1 norm falls monotonically in t, so t is found by bisection, to within float rounding. `eps` is one budget
    for all samples, or one for each (N,).
    """
    flat, low, high = delta.flatten(1), lower.flatten(1), upper.flatten(1)
    size, sign = flat.abs(), flat.sign()

    def shrunk(threshold: Tensor) -> Tensor:
        return torch.clamp(sign * (size - threshold[:, None]).clamp_min(0), low, high)

    near = torch.zeros_like(size[:, 0])
    far = size.amax(1)
    inside = shrunk(near).abs().sum(1) <= eps
    for _ in range(40):  # 2**-40 of the largest entry is below float32 resolution
        middle = (near + far) / 2
        small = shrunk(middle).abs().sum(1) <= eps
        far = torch.where(small, middle, far)
        near = torch.where(small, near, middle)
    return shrunk(torch.where(inside, torch.zeros_like(far), far)).view_as(delta)


def steepest(gradient: Tensor, norm: Norm, *, density: float = 0.05) -> Tensor:
    """Return the ascent direction of unit length in `norm`.

    L-infinity takes signs, L2 normalises, L1 spreads the step over the `density` largest entries (as APGD does,
    since a step on one pixel alone makes no progress). A zero gradient gives a zero direction.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return gradient / expand(lengths(gradient, "l2"), gradient).clamp_min(1e-30)
    flat = gradient.flatten(1).abs()
    kept = max(1, round(density * flat.shape[1]))
    least = flat.topk(kept, dim=1).values[:, -1:]
    sign = torch.where((flat >= least) & (flat > 0), gradient.flatten(1).sign(), 0.0)
    return (sign / sign.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def _bound(centre: Tensor, offset: float) -> Tensor:
    """Return centre + offset, stepping one float towards the centre where rounding went beyond."""
    exact = centre.double() + offset
    bound = exact.to(centre.dtype)
    beyond = (bound.double() - centre.double()).abs() > abs(offset)
    return torch.where(beyond, torch.nextafter(bound, centre), bound)
