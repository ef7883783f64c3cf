"""Comparisons that distinguish rounding and flips at the jump from defects; see `flips` for the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.verifier.compare import NO_DIFFERENCE, Difference, Value, difference
from jr_onnx.verifier.evaluators.ort import Level, OrtSession, Runnable
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.variants import Variant
from jr_onnx.verifier.whole_model.case import Case, Outputs
from jr_onnx.verifier.whole_model.flips import FlipTally, RunVerdict, SiteTrace, control_noise, judge
from jr_onnx.verifier.whole_model.marked import exposed
from jr_onnx.verifier.whole_model.tolerance import Bound

Side = tuple[Variant, Level]


def judged_comparison(
    case: Case,
    what: str,
    compared: str,
    pair: tuple[Outputs, Outputs],
    trace: Callable[[Sample], list[SiteTrace]],
    *,
    detail: str = "",
    more: Sequence[tuple[Outputs, Outputs]] = (),
) -> None:
    """Compare two evaluations of all samples within the bound, and judge what exceeds it.

    Args:
        case: The comparison's material.
        what: Name of the check.
        compared: What with what.
        pair: The outputs.
        trace: Returns the pre-activations of a sample in both evaluations; called only beyond the bound.
        detail: Why the two may differ by rounding.
        more: Further pairs of evaluations of the original that differ by rounding alone.
    """
    tally = FlipTally()
    bounds = case.bounds(*more)
    worst = NO_DIFFERENCE
    failures = []
    for number, (one, other) in enumerate(zip(*pair, strict=True)):
        beyond, seen = excess(one, other, bounds)
        worst = max(worst, seen, key=lambda item: item.size)
        verdict = judge(beyond, 0.0, trace(case.samples[number]) if beyond > 0 else [])
        verdict = with_steps(case, verdict, (one, other), bounds, number)
        tally.add(verdict)
        if verdict.outcome == "different":
            failures.append(Failure(what, "", sample_words(number), seen.one, seen.other, verdict.reason))
    enter_tally(case, what, compared, tally, worst, bounds, failures, detail=detail)


def with_steps(
    case: Case, verdict: RunVerdict, pair: tuple[Sequence[Value], Sequence[Value]], bounds: Sequence[Bound], number: int
) -> RunVerdict:
    """Return the verdict on a run, a flip where nothing but the steps of quantisers explains the difference."""
    if verdict.outcome != "different" or not case.steps:
        return verdict
    flip = case.steps.explain(*pair, [bound.value for bound in bounds], case.samples[number])
    if flip is None:
        return verdict
    return RunVerdict("flip", flip=flip, expected=max(verdict.expected, case.steps.expected))


def enter_tally(
    case: Case,
    what: str,
    compared: str,
    tally: FlipTally,
    worst: Difference,
    bounds: Sequence[Bound],
    failures: Sequence[Failure],
    *,
    detail: str = "",
) -> None:
    """Enter a comparison in which flips were counted."""
    listed = list(failures)
    if not tally.passed and not listed:
        listed.append(Failure(what, tally.flips[0].site, "", "", "", tally.reason()))
    flip = "" if not tally.flips else f"first flip: {tally.flips[0]}"
    detail = "; ".join(part for part in (detail, loose_words(bounds), flip) if part)
    verdict: Verdict = "passed" if tally.passed else "failed"
    bound = max((bound.value for bound in bounds), default=0.0)
    check = Check(what, compared, tally.runs, worst.size, bound, len(tally.flips), verdict, detail)
    case.log.add(check, *listed)


class TracesBetween:
    """The pre-activations of a run in two evaluations, with those at kappa 0 as the control.

    Sites below the main graph cannot be seen from outside; they are left out. Sessions are made when first needed.

    Args:
        sides: Variant and setting of both evaluations.
        controls: The same at kappa 0; None leaves a few roundings of the pre-activations' size as their error.
    """

    def __init__(self, sides: tuple[Side, Side], controls: tuple[Side, Side] | None) -> None:
        self._sides, self._controls = sides, controls
        self._sessions: dict[int, OrtSession] = {}

    def __call__(self, sample: Sample) -> list[SiteTrace]:
        """Return the traces of one input."""
        groups = [group for group in self._sides[0][0].groups if group.in_main_graph]
        if not groups:
            return []
        one, other = (self._pre_activations(number, side, sample) for number, side in enumerate(self._sides))
        control_one, control_other = one, one
        if self._controls is not None:
            control_one, control_other = (
                self._pre_activations(number, side, sample) for number, side in enumerate(self._controls, 2)
            )
        traces = []
        for group in groups:
            name = group.record.id
            noise = control_noise(control_one[name], control_other[name])
            traces.append(SiteTrace(name, group.record.kappa, one[name], other[name], noise, group.record.rank))
        return traces

    def _pre_activations(self, number: int, side: Side, sample: Sample) -> dict[str, Array]:
        variant, level = side
        groups = [group for group in variant.groups if group.in_main_graph]
        names = {group.operand: group.record.dtype for group in groups}
        if number not in self._sessions:
            self._sessions[number] = OrtSession(exposed_runnable(variant, names), level)
        values = dict(zip(names, self._sessions[number].run(sample, list(names)), strict=True))
        return {group.record.id: values[group.operand] for group in groups}


def exposed_runnable(variant: Variant, names: dict[str, str]) -> Runnable:
    """Return a variant with tensors of its main graph as further outputs."""
    source = variant.runnable.file
    file = replace(source, proto=exposed(source.proto, names))
    return Runnable(variant.name, file, library=variant.runnable.library)


def excess(one: Sequence[Value], other: Sequence[Value], bounds: Sequence[Bound] | None) -> tuple[float, Difference]:
    """Return by how much the worst output exceeds its bound (0 if none does), and the largest difference."""
    worst, beyond = NO_DIFFERENCE, 0.0
    if len(one) != len(other):
        return float("inf"), Difference(float("inf"), (), f"{len(one)} outputs", f"{len(other)} outputs")
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        seen = difference(left, right)
        limit = 0.0 if bounds is None else bounds[index].value
        if seen.size > limit:
            beyond = max(beyond, seen.size - limit)
        worst = max(worst, seen, key=lambda item: item.size)
    return beyond, worst


def loose_words(bounds: Sequence[Bound]) -> str:
    """Return a warning for a bound that proves little; "" for others."""
    loose = [bound for bound in bounds if bound.is_loose]
    if not loose:
        return ""
    worst = max(loose, key=lambda bound: bound.relative)
    part = "the size of the output" if not np.isfinite(worst.relative) else f"{worst.relative:.0%} of the output"
    return (
        f"loose: the original itself moves by {worst.measured:.2g} when only rounding differs, so the bound is {part}"
    )


def sample_words(number: int, index: tuple[int, ...] = ()) -> str:
    """Name a sample, and an element of its output."""
    place = f", output element {list(index)}" if index else ""
    return f"sample {number}{place}"
