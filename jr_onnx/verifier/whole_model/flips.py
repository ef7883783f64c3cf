"""When two evaluations may differ by more than rounding: a pre-activation so close to the jump that rounding decides.

J is discontinuous at kappa, so a difference of one float in front of a site can move an output by kappa times the
weights. The rule, run by run (a run is one sample: one call of the model):

1. Outputs within the rounding bound (`tolerance`): nothing to excuse.
2. Otherwise the sites are read in topological order. d = max |z_A - z_B| is a site's own measured rounding error. d may
   not exceed what the same site shows in the control (the same model at kappa = 0, which has no jump) times the
   safety factor: a larger error is not rounding, and the difference is a defect. The first site with an element
   |z - kappa| <= d > 0 is the flip; behind it everything may differ. No such site: a defect.
   A quantised model has further discontinuities, the steps of its quantisers; see `steps`.
3. Flips are counted. More than 1 % of the runs fail, unless so many are what chance brings: in a ring around kappa,
   outside d and a hundred times as wide, elements are counted; a smooth density puts 1/99 of them within d. From
   this mean m per run a run has a flip with probability 1 - exp(-m), and the count may exceed its mean by four
   standard deviations. A large network crosses the jump somewhere in every run; a kappa that lies on a value which
   pre-activations really take (an atom, not a density) does not pass for chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from jr_onnx.element_types import Array
from jr_onnx.semantics import SiteKappa, kappa_array
from jr_onnx.verifier.compare import dtype_name, finite_difference, magnitude
from jr_onnx.verifier.whole_model.steps import StepFlip
from jr_onnx.verifier.whole_model.tolerance import FLOOR_ROUNDINGS, SAFETY, unit_roundoff

FLIP_LIMIT: Final = 0.01
"""Part of the runs that may flip without a look at how likely that is."""

_RING: Final = 100.0
_DEVIATIONS: Final = 4.0
_CHANCE_FROM: Final = 1.0  # fewer ring elements per run give no useful density

Outcome = Literal["equal", "rounding", "flip", "different"]


@dataclass(frozen=True)
class SiteTrace:
    """What two evaluations of one run had in front of a site.

    Attributes:
        id: The site.
        kappa: Its jump, rounded to the element type, or one for each channel, axis 1.
        one: Pre-activations of the first evaluation, of any shape.
        other: Those of the second.
        noise: The largest difference of the two evaluations at this site in the control; see `control_noise`.
        rank: The rank that a kappa per channel was made for, as in the site's record.
    """

    id: str
    kappa: SiteKappa
    one: Array
    other: Array
    noise: float
    rank: int | None = None

    @property
    def jumps(self) -> NDArray[np.float64]:
        """Kappa as float64, of a shape that broadcasts over the pre-activations."""
        return kappa_array(self.kappa, self.rank or self.one.ndim, np.float64)


@dataclass(frozen=True)
class NearJump:
    """A pre-activation within its own rounding error of the jump.

    Attributes:
        site: The site's id.
        index: Position of the element.
        one: Its value in the first evaluation.
        other: Its value in the second.
        kappa: The jump.
        error: The site's measured rounding error in this run.
        crosses: Whether the two values lie on different sides of the jump.
    """

    site: str
    index: tuple[int, ...]
    one: float
    other: float
    kappa: float
    error: float
    crosses: bool

    def __str__(self) -> str:
        """One line for reports."""
        side = "on both sides of" if self.crosses else "beside"
        return (
            f"{self.site}{list(self.index)}: {self.one:.9g} and {self.other:.9g} {side} kappa {self.kappa:.9g} "
            f"(rounding error {self.error:.2g})"
        )


@dataclass(frozen=True)
class RunVerdict:
    """The verdict on one run.

    Attributes:
        outcome: equal, rounding (within the bound), flip (accepted) or different (a defect).
        flip: The near jump, or what quantisation steps explain, for the outcome `flip`.
        reason: Why a difference is not accepted, for the outcome `different`.
        expected: Near jumps per run that chance would bring.
    """

    outcome: Outcome
    flip: NearJump | StepFlip | None = None
    reason: str = ""
    expected: float = 0.0


def control_noise(one: Array, other: Array) -> float:
    """Return a site's rounding error in a control run, at least a few roundings of the pre-activations' own size.

    Finite values alone count: an overflow in one of the two runs does not measure rounding.
    """
    floor = FLOOR_ROUNDINGS * unit_roundoff(dtype_name(one)) * magnitude(one)
    return max(finite_difference(one, other), floor)


def judge(size: float, bound: float, traces: Sequence[SiteTrace]) -> RunVerdict:
    """Judge one run.

    Args:
        size: The largest difference of the two evaluations' outputs.
        bound: The rounding bound; if outputs have different bounds, pass the largest excess and 0.
        traces: The sites in topological order; only looked at beyond the bound.
    """
    if size == 0:
        return RunVerdict("equal")
    if size <= bound:
        return RunVerdict("rounding")
    expected = expected_near(traces)
    beside: NearJump | None = None
    for trace in traces:
        error = _error(trace.one, trace.other)
        if not math.isfinite(error) or error > SAFETY * trace.noise:
            reason = (
                f"the pre-activations of {trace.id} differ by {error:.3g}, which is not rounding "
                f"({trace.noise:.2g} at kappa 0), and no site before it is near its jump"
            )
            return RunVerdict("different", reason=reason, expected=expected)
        near = nearest(trace, error)
        if near is not None and near.crosses:
            return RunVerdict("flip", flip=near, expected=expected)
        beside = beside or near
    if beside is not None:
        return RunVerdict("flip", flip=beside, expected=expected)
    return RunVerdict("different", reason="no pre-activation lies within its rounding error of the jump")


def nearest(trace: SiteTrace, error: float) -> NearJump | None:
    """Return the element closest to the jump if it lies within the rounding error, else None."""
    if error <= 0 or trace.one.size == 0:
        return None
    one, other = trace.one.astype(np.float64), trace.other.astype(np.float64)
    jumps = np.broadcast_to(trace.jumps, one.shape)
    crossing = (one > jumps) != (other > jumps)
    distance = np.minimum(np.abs(one - jumps), np.abs(other - jumps))
    distance = np.where(np.isnan(distance), np.inf, distance)
    # An element on both sides of the jump explains more than one that is merely close.
    ranked = np.where(crossing, distance - 2 * error, distance)
    flat = int(ranked.argmin())
    place = tuple(int(position) for position in np.unravel_index(flat, ranked.shape))
    if not distance[place] <= error:
        return None
    return NearJump(
        trace.id, place, float(one[place]), float(other[place]), float(jumps[place]), error,
        crosses=bool(crossing[place]),
    )  # fmt: skip


def expected_near(traces: Sequence[SiteTrace]) -> float:
    """Return how many elements of one run lie within rounding error of the jump by chance, from the ring around it."""
    ring = 0
    for trace in traces:
        # Behind a flip the difference is not rounding; the control's is, and is the larger of the two elsewhere.
        width = trace.noise
        if width <= 0 or trace.one.size == 0:
            continue
        with np.errstate(invalid="ignore"):
            distance = np.abs(trace.one.astype(np.float64) - trace.jumps)
        ring += int(np.count_nonzero((distance > width) & (distance <= _RING * width)))
    return ring / (_RING - 1) if ring >= _CHANCE_FROM else 0.0


@dataclass
class FlipTally:
    """Verdicts over many runs, and the verdict on them all."""

    runs: int = 0
    expected: float = 0.0
    flips: list[NearJump | StepFlip] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    def add(self, verdict: RunVerdict) -> None:
        """Count one run."""
        self.runs += 1
        self.expected += verdict.expected
        if verdict.flip is not None:
            self.flips.append(verdict.flip)
        elif verdict.outcome == "different":
            self.defects.append(verdict.reason)

    @property
    def allowed(self) -> int:
        """How many flips are accepted: 1 % of the runs, or what chance brings where that is more."""
        limit = math.floor(FLIP_LIMIT * self.runs)
        if self.runs == 0 or not self.flips:
            return limit
        # `expected` was measured on the runs that were looked at closely, the flips and the defects.
        mean = self.expected / (len(self.flips) + len(self.defects))
        probability = 1.0 - math.exp(-mean)
        if probability <= FLIP_LIMIT:
            return limit
        count = self.runs * probability
        spread = math.sqrt(self.runs * probability * (1.0 - probability))
        return min(self.runs, max(limit, math.floor(count + _DEVIATIONS * spread)))

    @property
    def passed(self) -> bool:
        """Whether there is no defect and no more flips than accepted."""
        return not self.defects and len(self.flips) <= self.allowed

    def reason(self) -> str:
        """Say why it did not pass; "" where it did."""
        if self.defects:
            return self.defects[0]
        if len(self.flips) > self.allowed:
            where = "a quantisation step" if any(isinstance(flip, StepFlip) for flip in self.flips) else "the jump"
            return (
                f"{len(self.flips)} of {self.runs} runs flip at {where}, {self.allowed} are accepted; "
                f"first {self.flips[0]}"
            )
        return ""


def _error(one: Array, other: Array) -> float:
    """Return max |one - other|, infinite where shapes or non-finite values disagree."""
    if one.shape != other.shape:
        return math.inf
    left, right = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(left - right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    gap = np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
    return float(gap.max(initial=0.0))
