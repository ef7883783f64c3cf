"""Compare a torch evaluation with ONNX Runtime, and distinguish rounding and jumps from errors.

How large a difference is rounding? The torch side is evaluated in double precision too. The distance E between its
two results is the rounding error of *one* order of summation; ONNX Runtime's, of the same arithmetic in another
order, is of the same size. So the two may differ by E plus that other error, for which `_OTHERS` times E is granted:
the largest errors of a sample set differ between two orders by a small factor, while a wrong attribute or weight
changes leading digits. `_FLOOR` units in the last place of the largest logit come on top, for models whose E is 0.

JumpReLU is discontinuous: a pre-activation within rounding of kappa may fall on either side, and the logits then
differ by more. So at kappa > 0 a sample's bound is widened by what its logits change when the kappas of all sites
move, together and in random directions, by (1 + _OTHERS) times the rounding error measured at their inputs (measured
at kappa 0, where nothing jumps); twice that, because some units alone may move the logits more than all together.
The samples that need it are counted, and callers compare at kappa 0 first, where the bound is tight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jr_onnx.element_types import Array
from jr_onnx.errors import ModelError
from jr_onnx.records import Record
from jr_onnx.semantics import SiteKappa, map_kappa

Floats = npt.NDArray[np.float64]
_OTHERS = 8.0
_FLOOR = 16.0
_PATTERNS = 4
_WIDENING = 2.0


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """One comparison of torch with ONNX Runtime.

    Attributes:
        what: What was compared, for instance "original at kappa 0" or "retrofit".
        samples: How many were compared.
        max_abs_error: Largest difference of a logit.
        bound: What rounding explains, for samples away from every jump.
        worst_sample: Index of the sample that comes nearest to its own bound or exceeds it most.
        worst_ratio: Its difference over its bound; above 1 is a failure.
        disagreements: Samples whose largest logit is another one.
        near_jump: Samples that differ by more than `bound`, explained by pre-activations within rounding of kappa.
        passed: Whether every sample is within its bound.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.torch_comparison/1"
    what: str
    samples: int
    max_abs_error: float
    bound: float
    worst_sample: int
    worst_ratio: float
    disagreements: int
    near_jump: int
    passed: bool

    def __str__(self) -> str:
        return (
            f"sample {self.worst_sample} ({self.what}): the difference is {self.worst_ratio:.3g} times what rounding "
            f"explains, {self.bound:.3g} (largest anywhere {self.max_abs_error:.3g}; {self.disagreements} of "
            f"{self.samples} predictions differ)"
        )


class Evaluated(Protocol):
    """A network in torch whose jumps can be set, in one precision."""

    @property
    def eps(self) -> float:
        """Unit in the last place of 1 in its precision."""

    def set_kappas(self, kappas: Mapping[str, SiteKappa]) -> None:
        """Set the jump of every site, unrounded."""

    def logits(self, part: Tensor) -> Floats:
        """Return the logits of some samples in double precision, (N, K)."""

    def site_inputs(self, part: Tensor) -> dict[str, list[Tensor]]:
        """Return what goes into every site; a site in a function called several times has several."""


class Pair:
    """The network to verify, and a measure of rounding: another one in two precisions; always at the same kappas.

    Args:
        own: The network that is to be verified.
        plain: In the precision of `own`, from the same source as `exact`; `own` itself where that is its source.
        exact: In double precision.
        batch: How many samples to evaluate at a time.
    """

    def __init__(self, own: Evaluated, plain: Evaluated, exact: Evaluated, batch: int) -> None:
        self._own = own
        self._plain = plain
        self._exact = exact
        self._batch = max(1, batch)
        self._kappas: dict[str, SiteKappa] = {}

    def set_kappas(self, kappas: Mapping[str, SiteKappa]) -> None:
        """Set the kappas of both."""
        self._kappas = dict(kappas)
        for side in (self._own, self._plain, self._exact):
            side.set_kappas(kappas)

    def rounding_at_sites(self, data: Tensor) -> dict[str, float]:
        """Return per site the largest rounding error of a pre-activation; call it at kappa 0."""
        largest: dict[str, float] = {}
        for part in torch.split(data, self._batch):
            gaps = _largest_gaps(self._plain.site_inputs(part), self._exact.site_inputs(part))
            for name, error in gaps.items():
                largest[name] = max(largest.get(name, 0.0), error)
        return largest

    def compare(
        self, what: str, reference: Callable[[Array], Array], data: Tensor, rounding: Mapping[str, float] | None
    ) -> Comparison:
        """Compare all samples with a reference.

        Args:
            what: Goes into the result.
            reference: Returns the other side's logits.
            data: The samples.
            rounding: The rounding error at the sites; None at kappa 0.

        Raises:
            ModelError: The reference has another number of logits.
        """
        parts = torch.split(data, self._batch)
        own = np.concatenate([self._own.logits(part) for part in parts])
        plain = np.concatenate([self._plain.logits(part) for part in parts])
        exact = np.concatenate([self._exact.logits(part) for part in parts])
        theirs = np.concatenate([np.asarray(reference(part.cpu().numpy()), dtype=np.float64) for part in parts])
        if theirs.shape != own.shape:
            raise ModelError(f"ONNX Runtime gives results of the shape {theirs.shape}, torch {own.shape}")
        wide = np.zeros(len(own))
        if rounding is not None:
            wide = np.concatenate([self._jump_effect(part, rounding) for part in parts])
        away = _difference(plain, exact)[wide <= np.median(wide)]  # the half of the samples farthest from every jump
        largest = np.abs(exact[np.isfinite(exact)]).max(initial=0.0)
        bound = (1 + _OTHERS) * away[np.isfinite(away)].max(initial=0.0) + _FLOOR * self._own.eps * largest
        return _judge(what, own, theirs, float(bound), wide)

    def _jump_effect(self, part: Tensor, rounding: Mapping[str, float]) -> Floats:
        """Return per sample how much its logits change when kappas move by the rounding error at their sites."""
        base = self._exact.logits(part)
        largest = np.zeros(len(base))
        for signs in _directions(len(self._kappas)):
            shifted = {
                name: map_kappa(kappa, functools.partial(_shifted, sign * (1 + _OTHERS) * rounding.get(name, 0.0)))
                for (name, kappa), sign in zip(self._kappas.items(), signs, strict=True)
            }
            self._exact.set_kappas(shifted)
            largest = np.maximum(largest, _finite_difference(self._exact.logits(part), base))
        self._exact.set_kappas(self._kappas)
        return largest


def _judge(what: str, own: Floats, theirs: Floats, bound: float, wide: Floats) -> Comparison:
    """Hold the differences against the bounds."""
    difference = _difference(own, theirs)
    limits = bound + _WIDENING * wide
    ratio = difference / np.maximum(limits, np.finfo(np.float64).tiny)
    worst = int(ratio.argmax())
    return Comparison(
        what=what,
        samples=len(own),
        max_abs_error=float(difference.max(initial=0.0)),
        bound=bound,
        worst_sample=worst,
        worst_ratio=float(ratio[worst]),
        disagreements=int((own.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
        near_jump=int(((difference > bound) & (difference <= limits)).sum()),
        passed=bool((difference <= limits).all()),
    )


def _shifted(by: float, kappa: float) -> float:
    return max(0.0, kappa + by) if kappa > 0 else 0.0


def _directions(sites: int) -> Sequence[Floats]:
    """Return signs per site: all up, all down, and a few random mixtures, the same ones every time."""
    random = np.random.default_rng(0)
    mixed = [random.choice([-1.0, 1.0], sites) for _ in range(_PATTERNS)]
    return [np.ones(sites), -np.ones(sites), *mixed]


def _difference(mine: Floats, theirs: Floats) -> Floats:
    """Return the largest difference per sample; equal infinities and NaNs at the same places do not differ."""
    with np.errstate(invalid="ignore"):
        gap = np.where((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)), 0.0, np.abs(mine - theirs))
    gap[np.isnan(gap)] = np.inf
    largest: Floats = gap.max(axis=1, initial=0.0)
    return largest


def _finite_difference(mine: Floats, theirs: Floats) -> Floats:
    """Return the largest difference per sample where both are finite: what a tolerance is made of.

    One infinity would make the tolerance infinite, and everything would pass.
    """
    both = np.isfinite(mine) & np.isfinite(theirs)
    gap = np.abs(np.where(both, mine, 0.0) - np.where(both, theirs, 0.0))
    largest: Floats = gap.max(axis=1, initial=0.0)
    return largest


def _largest_gaps(one: Mapping[str, list[Tensor]], other: Mapping[str, list[Tensor]]) -> dict[str, float]:
    """Return per site the largest difference of what went into it, where both are finite."""
    return {
        name: max(
            (_finite_gap(mine.double(), reference) for mine, reference in zip(one[name], tensors, strict=True)),
            default=0.0,
        )
        for name, tensors in other.items()
    }


def _finite_gap(mine: Tensor, reference: Tensor) -> float:
    both = torch.isfinite(mine) & torch.isfinite(reference)
    gaps = (mine[both] - reference[both]).abs()
    return float(gaps.max().item()) if gaps.numel() else 0.0
