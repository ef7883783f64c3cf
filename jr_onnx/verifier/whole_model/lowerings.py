"""Level two: the whole model on ONNX Runtime, lowering against lowering, setting against setting.

conversion:          the original before its opset was converted equals the converted one within the rounding bound
kappa 0, plain:      every lowering equals the original, value for value (float16: within the rounding bound)
kappa 0, optimised:  every lowering equals the optimised original within the rounding bound
own thresholds:      the same of jumps that the original has itself, for J with their thresholds is the original
kappa, either:       every lowering equals the file in the same setting, value for value where ONNX Runtime computes
                     both with the same arithmetic (see `arithmetic`); where not, and in float16, as the next
kappa:               the optimised file equals the plain file within the bound, except flips at the jump
"""

from __future__ import annotations

from collections.abc import Sequence

from jr_onnx.errors import VerificationError
from jr_onnx.verifier.compare import NO_DIFFERENCE, difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError, NoKernelError
from jr_onnx.verifier.evaluators.ort import LEVELS, Level, OrtSession, Runnable
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.variants import Variant, control_label
from jr_onnx.verifier.whole_model.arithmetic import optimised_arithmetic
from jr_onnx.verifier.whole_model.case import Case, Outputs, run_all
from jr_onnx.verifier.whole_model.judged import (
    Side,
    TracesBetween,
    excess,
    exposed_runnable,
    judged_comparison,
    loose_words,
    sample_words,
)
from jr_onnx.verifier.whole_model.tolerance import Bound

_CONVERSION = "conversion"


def check_conversion(case: Case) -> None:
    """Compare the original before its opset was converted with the one that the retrofit was made of."""
    source = case.subject.unconverted
    if source is None:
        return
    compared = "ORIGINAL with itself, its opset converted"
    try:
        truth = run_all(Runnable("ORIGINAL", source), "plain", case.samples)
    except (CannotLoadError, CannotRunError) as error:
        case.log.not_run(_CONVERSION, compared, error.message)
        return
    _enter(case, _CONVERSION, compared, truth, case.plain, case.bounds(), ())


def check_zero(case: Case, zeros: Sequence[Variant]) -> None:
    """Compare every lowering with the original, at kappa 0 or at the thresholds of jumps that the original has."""
    for level in LEVELS:
        truth = case.plain if level == "plain" else case.optimised
        what = f"{control_label(case.subject.record)}, {level}"
        if truth is None:
            case.log.not_run(what, "lowerings with the original", "ONNX Runtime cannot optimise the original")
            continue
        for variant in zeros:
            # Which nodes ONNX Runtime leaves in float32 may depend on who writes the site; see `Case.sees_float16`.
            exact = level == "plain" and not case.sees_float16
            bounds = None if exact else case.bounds()
            compared = f"{variant.name} with the original"
            outputs = outputs_or_note(case, variant.runnable, level, what, compared)
            if outputs is None:
                continue
            if case.steps and bounds is not None:
                judged_comparison(case, what, compared, (truth, outputs), lambda _: [])
            else:
                _enter(case, what, compared, truth, outputs, bounds, (variant,))


def check_lowerings(
    case: Case, file: Variant, others: Sequence[Variant], zeros: Sequence[Variant], *, sound: bool
) -> dict[Level, Outputs]:
    """Compare the lowerings at kappa with the file and return the file's outputs.

    Args:
        case: The comparison's material.
        file: The retrofit.
        others: It with other lowerings.
        zeros: The lowerings at kappa 0, which show how differently two of them round.
        sound: Whether the file's sites are where its provenance says; if not, nothing but equality passes.
    """
    found: dict[Level, Outputs] = {}
    for level in LEVELS:
        what = f"kappa, {level}"
        own = outputs_or_note(case, file.runnable, level, what, f"{file.name} with other lowerings")
        if own is None:
            continue
        found[level] = own
        for variant in others:
            compared = f"{variant.name} with {file.name}"
            outputs = outputs_or_note(case, variant.runnable, level, what, compared)
            if outputs is None:
                continue
            # In float16 either may be rounded where the other keeps its float32 bits; see `Case.sees_float16`.
            unlike = "float16 may be rounded elsewhere" if case.sees_float16 else ""
            if sound and level == "optimised" and not unlike:
                unlike = _unlike(variant, file, outputs, own)
            if unlike:
                trace = TracesBetween(((variant, level), (file, level)), _controls(variant, file, level, zeros))
                judged_comparison(case, what, compared, (outputs, own), trace, detail=unlike)
            else:
                _enter(case, what, compared, outputs, own, None, (file, variant))
    return found


def _unlike(variant: Variant, file: Variant, outputs: Outputs, own: Outputs) -> str:
    """Say why two optimised lowerings round differently; "" if they do not, or must not."""
    if not any(excess(one, other, None)[0] for one, other in zip(outputs, own, strict=True)):
        return ""
    try:
        here, there = (optimised_arithmetic(item.runnable) for item in (variant, file))
    except CannotLoadError as error:
        return f"how ONNX Runtime optimises them cannot be compared: {error.message}"
    words = here.difference(there)
    return f"ONNX Runtime optimises them differently: {words}" if words else ""


def _controls(variant: Variant, file: Variant, level: Level, zeros: Sequence[Variant]) -> tuple[Side, Side] | None:
    """Return two lowerings at kappa 0, None where one of them is impossible."""
    by_name = {item.name: item for item in zeros}
    own = "/".join(dict.fromkeys(site.lowering for site in file.record.sites))
    if variant.name not in by_name or own not in by_name:
        return None
    return (by_name[variant.name], level), (by_name[own], level)


def outputs_or_note(case: Case, runnable: Runnable, level: Level, what: str, compared: str) -> Outputs | None:
    """Return a retrofit's outputs, None where it does not run; what that means is entered in the log."""
    try:
        return run_all(runnable, level, case.samples)
    except NoKernelError as error:
        case.log.not_run(what, compared, f"not run on ONNX Runtime: {error.message}")
        return None
    except (CannotLoadError, CannotRunError) as error:
        # The original runs here, so a retrofit that does not is a disagreement, not a gap.
        case.log.add(
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
            failures.append(Failure(what, site, sample_words(number, seen.index), seen.one, seen.other, words))
    bound = None if bounds is None else max((bound.value for bound in bounds), default=0.0)
    detail = "" if bounds is None else loose_words(bounds)
    verdict: Verdict = "failed" if failures else "passed"
    check = Check(what, compared, len(expected), worst.size, bound, 0, verdict, detail)
    case.log.add(check, *failures)


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


def check_optimisation(case: Case, file: Variant, zero: Variant | None, outputs: dict[Level, Outputs]) -> None:
    """Compare the optimised file with the plain file; only flips at the jump may exceed the bound."""
    if len(outputs) < len(LEVELS):
        return
    sides: tuple[Side, Side] = (file, "plain"), (file, "optimised")
    controls: tuple[Side, Side] | None = ((zero, "plain"), (zero, "optimised")) if zero is not None else None
    judged_comparison(
        case,
        "kappa, optimised against plain",
        f"{file.name} with itself",
        (outputs["plain"], outputs["optimised"]),
        TracesBetween(sides, controls),
    )
