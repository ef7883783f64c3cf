"""Level two: the whole model on ONNX Runtime, lowering against lowering, setting against setting.

kappa 0, plain:      every lowering equals the original, value for value
kappa 0, optimised:  every lowering equals the optimised original within the rounding bound
kappa, either:       every lowering equals the file, value for value in the same setting
kappa:               the optimised file equals the plain file within the bound, but for flips at the jump
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jr_onnx.errors import VerificationError
from jr_onnx.modelfile import ModelFile
from jr_onnx.verify.backends import LEVELS, CannotLoadError, CannotRunError, Level, OrtSession, Runnable
from jr_onnx.verify.compare import NO_DIFFERENCE, Difference, difference
from jr_onnx.verify.evaluate import Case, Outputs, run_all
from jr_onnx.verify.flips import FlipTally, SiteTrace, control_noise, judge
from jr_onnx.verify.inputs import Sample
from jr_onnx.verify.marked import exposed
from jr_onnx.verify.report import Check, Failure
from jr_onnx.verify.tolerance import Bound
from jr_onnx.verify.variants import Variant


def check_zero(case: Case, zeros: Sequence[Variant]) -> None:
    """Compare every lowering at kappa 0 with the original."""
    for level in LEVELS:
        truth = case.plain if level == "plain" else case.optimised
        what = f"kappa 0, {level}"
        if truth is None:
            case.findings.not_run(what, "lowerings with the original", "ONNX Runtime cannot optimise the original")
            continue
        bounds = None if level == "plain" else case.bounds()
        for variant in zeros:
            compared = f"{variant.name} with the original"
            outputs = _outputs_or_note(case, variant.runnable, level, what, compared)
            if outputs is not None:
                _enter(case, what, compared, truth, outputs, bounds, (variant,))


def check_lowerings(case: Case, file: Variant, others: Sequence[Variant]) -> dict[Level, Outputs]:
    """Compare the lowerings at kappa with the file, value for value, and return the file's outputs."""
    found: dict[Level, Outputs] = {}
    for level in LEVELS:
        what = f"kappa, {level}"
        own = _outputs_or_note(case, file.runnable, level, what, f"{file.name} with other lowerings")
        if own is None:
            continue
        found[level] = own
        for variant in others:
            compared = f"{variant.name} with {file.name}"
            outputs = _outputs_or_note(case, variant.runnable, level, what, compared)
            if outputs is not None:
                _enter(case, what, compared, outputs, own, None, (file, variant))
    return found


def check_optimisation(case: Case, file: Variant, zero: Variant | None, outputs: dict[Level, Outputs]) -> None:
    """Compare the optimised file with the plain file; only flips at the jump may exceed the bound."""
    what, compared = "kappa, optimised against plain", f"{file.name} with itself"
    if len(outputs) < len(LEVELS):
        return
    tally = FlipTally()
    bounds = case.bounds()
    worst = NO_DIFFERENCE
    failures = []
    for number, (plain, optimised) in enumerate(zip(outputs["plain"], outputs["optimised"], strict=True)):
        beyond, seen = excess(plain, optimised, bounds)
        worst = max(worst, seen, key=lambda item: item.size)
        traces: list[SiteTrace] = []
        if beyond > 0 and zero is not None:
            traces = traces_between_levels(file, zero, case.samples[number])
        verdict = judge(beyond, 0.0, traces)
        tally.add(verdict)
        if verdict.outcome == "different":
            failures.append(Failure(what, "", _sample(number), seen.one, seen.other, verdict.reason))
    enter_tally(case, what, compared, tally, worst, bounds, failures)


def enter_tally(
    case: Case,
    what: str,
    compared: str,
    tally: FlipTally,
    worst: Difference,
    bounds: Sequence[Bound],
    failures: Sequence[Failure],
) -> None:
    """Enter a comparison in which flips were counted."""
    listed = list(failures)
    if not tally.passed and not listed:
        listed.append(Failure(what, tally.flips[0].site, "", "", "", tally.reason()))
    detail = "" if not tally.flips else f"first flip: {tally.flips[0]}"
    detail = "; ".join(part for part in (_loose(bounds), detail) if part)
    verdict = "passed" if tally.passed else "failed"
    bound = max((bound.value for bound in bounds), default=0.0)
    check = Check(what, compared, tally.runs, worst.size, bound, len(tally.flips), verdict, detail)  # type: ignore[arg-type]
    case.findings.add(check, *listed)


def traces_between_levels(file: Variant, zero: Variant, sample: Sample) -> list[SiteTrace]:
    """Return the pre-activations of one run at both settings, with the same at kappa 0 as the control.

    Sites below the main graph cannot be seen from outside; they are left out.
    """
    groups = [group for group in file.groups if group.in_main_graph]
    names = {group.operand: group.record.dtype for group in groups}
    if not names:
        return []
    seen: dict[tuple[str, Level], dict[str, Any]] = {}
    for variant in (file, zero):
        for level in LEVELS:
            runnable = exposed_runnable(variant, names)
            values = OrtSession(runnable, level).run(sample, list(names))
            seen[variant.name, level] = dict(zip(names, values, strict=True))
    traces = []
    for group in groups:
        name = group.operand
        noise = control_noise(seen[zero.name, "plain"][name], seen[zero.name, "optimised"][name])
        one, other = seen[file.name, "plain"][name], seen[file.name, "optimised"][name]
        traces.append(SiteTrace(group.record.id, group.record.kappa, one, other, noise))
    return traces


def exposed_runnable(variant: Variant, names: dict[str, str]) -> Runnable:
    """Return a variant with tensors of its main graph as further outputs."""
    source = variant.runnable.file
    file = ModelFile(source.path, exposed(source.proto, names), source.payloads, source.sha256, source.length_bytes)
    return Runnable(variant.name, file, library=variant.runnable.library)


def _outputs_or_note(case: Case, runnable: Runnable, level: Level, what: str, compared: str) -> Outputs | None:
    try:
        return run_all(runnable, level, case.samples)
    except (CannotLoadError, CannotRunError) as error:
        # The original runs here, so a retrofit that does not is a disagreement, not a gap.
        case.findings.add(
            Check(what, compared, 0, float("inf"), None, 0, "failed", error.message),
            Failure(what, "", "", "the original runs", "the retrofit does not", error.message),
        )
        return None


def _enter(
    case: Case,
    what: str,
    compared: str,
    expected: Outputs,
    found: Outputs,
    bounds: Sequence[Bound] | None,
    blamed: Sequence[Variant],
) -> None:
    """Compare the outputs of all samples, value for value without bounds, and enter the result."""
    worst = NO_DIFFERENCE
    failures: list[Failure] = []
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        beyond, seen = excess(one, other, bounds)
        worst = max(worst, seen, key=lambda item: item.size)
        if beyond > 0 and not failures:
            site, words = _blame(blamed, case.samples[number])
            failures.append(Failure(what, site, _sample(number, seen.index), seen.one, seen.other, words))
    bound = None if bounds is None else max((bound.value for bound in bounds), default=0.0)
    detail = "" if bounds is None else _loose(bounds)
    verdict = "failed" if failures else "passed"
    check = Check(what, compared, len(expected), worst.size, bound, 0, verdict, detail)  # type: ignore[arg-type]
    case.findings.add(check, *failures)


def excess(one: Sequence[Any], other: Sequence[Any], bounds: Sequence[Bound] | None) -> tuple[float, Difference]:
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


def _blame(blamed: Sequence[Variant], sample: Sample) -> tuple[str, str]:
    """Name the first site at which two retrofits part: same pre-activation, another result."""
    if len(blamed) != 2:
        return "", ""
    names: dict[str, str] = {}
    try:
        groups = {group.record.id: group for group in blamed[0].groups if group.in_main_graph}
        others = {group.record.id: group for group in blamed[1].groups if group.in_main_graph}
        for group in groups.values():
            names[group.record.output] = group.record.dtype
        first, second = (
            dict(zip(names, OrtSession(exposed_runnable(item, names), "plain").run(sample, list(names)), strict=True))
            for item in blamed
        )
    except (CannotLoadError, CannotRunError, VerificationError):
        return "", ""
    for site, group in groups.items():
        name = group.record.output
        seen = difference(first[name], second[name])
        if seen and site in others:
            place = list(seen.index)
            return site, f"the first site that differs, at {place}: {seen.one} and {seen.other}"
    return "", "no site of the main graph differs"


def _loose(bounds: Sequence[Bound]) -> str:
    loose = [bound for bound in bounds if bound.is_loose]
    if not loose:
        return ""
    worst = max(loose, key=lambda bound: bound.relative)
    part = "the size of the output" if not np.isfinite(worst.relative) else f"{worst.relative:.0%} of the output"
    return (
        f"loose: the original itself moves by {worst.measured:.2g} when only rounding differs, so the bound is {part}"
    )


def _sample(number: int, index: tuple[int, ...] = ()) -> str:
    place = f", output element {list(index)}" if index else ""
    return f"sample {number}{place}"
