"""The reference run: the original in ONNX's reference evaluator, NumPy's J at its sites, against ONNX Runtime.

Nothing of this package's lowerings takes part, and no kernel of ONNX Runtime. The two round differently, so outputs
agree within the bound measured on the original between the same two evaluators; beyond it only flips are accepted.

A flip is judged by the pre-activations of the reference run and of ONNX Runtime, exposed as outputs. Sites in
functions and sub-graphs cannot be exposed; if there are such, the second evaluation is the reference on inputs moved
by one rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from jr_onnx.element_types import Array
from jr_onnx.verifier.compare import NO_DIFFERENCE, Value, difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.form import evaluator_form
from jr_onnx.verifier.evaluators.ort import OrtSession
from jr_onnx.verifier.evaluators.reference import PreActivations, SiteEvaluator
from jr_onnx.verifier.evaluators.weights import with_weights
from jr_onnx.verifier.inputs import Sample
from jr_onnx.verifier.report import Failure
from jr_onnx.verifier.variants import Variant, control_kappas
from jr_onnx.verifier.whole_model.case import Case, nudged_samples
from jr_onnx.verifier.whole_model.flips import FlipTally, SiteTrace, control_noise, judge
from jr_onnx.verifier.whole_model.judged import enter_tally, excess, exposed_runnable, with_steps
from jr_onnx.verifier.whole_model.marked import marked
from jr_onnx.verifier.whole_model.tolerance import LOOSE, Bound, rounding_bound

_WHAT = "reference run"


@dataclass(frozen=True)
class SiteEvaluators:
    """The original in the reference evaluator, with the given kappas and with kappa 0."""

    jumping: SiteEvaluator
    control: SiteEvaluator


@dataclass(frozen=True)
class _Sides:
    """What a comparison of one sample needs again if it exceeds the bound."""

    found: Sequence[Value]
    seen: PreActivations


def load_references(original: onnx.ModelProto, file: Variant) -> SiteEvaluators:
    """Return the reference evaluators.

    Args:
        original: The original with all its weights.
        file: The retrofit; its record says which sites have which kappa.

    Raises:
        CannotLoadError: The evaluator lacks an operator.
    """
    kappas = {site.id: site.kappa for site in file.record.sites}
    caps = {site.id: site.cap for site in file.record.sites}
    proto = evaluator_form(marked(original, set(kappas), file.runnable.file.folder))
    ranks = {site.id: site.rank for site in file.record.sites}
    control = SiteEvaluator(proto, control_kappas(file.record), caps, ranks)
    return SiteEvaluators(SiteEvaluator(proto, kappas, caps, ranks), control)


def check_reference(case: Case, file: Variant, zero: Variant | None, count: int) -> None:
    """Compare the plain file with the reference on the first samples.

    Args:
        case: The comparison's material.
        file: The retrofit.
        zero: A retrofit with kappa 0, whose pre-activations are the control.
        count: How many samples; the evaluator is slow.
    """
    compared = f"{file.name} with the original in ONNX's evaluator, NumPy's J at the sites"
    samples = case.samples[:count]
    if not samples:
        case.log.not_run(_WHAT, compared, "no samples were asked for (--reference-samples 0)")
        return
    try:
        references = load_references(with_weights(case.subject.original), file)
        controls = [references.control.run(sample) for sample in samples]
        strange = _disagreement(case, controls)
        if strange:
            case.log.not_run(_WHAT, compared, strange)
            return
        bounds = _bounds(case, controls)
        session = OrtSession(file.runnable, "plain")
        ort = [session.run(sample) for sample in samples]
        runs = [_Sides(*references.jumping.run(sample)) for sample in samples]
    except (CannotLoadError, CannotRunError) as error:
        case.log.not_run(_WHAT, compared, error.message)
        return
    tally = FlipTally()
    failures: list[Failure] = []
    worst = NO_DIFFERENCE
    for number, (sides, own) in enumerate(zip(runs, ort, strict=True)):
        beyond, seen = excess(sides.found, own, bounds)
        worst = max(worst, seen, key=lambda item: item.size)
        traces = _traces(case, file, zero, references, number, sides.seen, controls[number][1]) if beyond > 0 else []
        verdict = with_steps(case, judge(beyond, 0.0, traces), (sides.found, own), bounds, number)
        tally.add(verdict)
        if verdict.outcome == "different":
            given = f"sample {number}, output element {list(seen.index)}"
            failures.append(Failure(_WHAT, "", given, seen.one, seen.other, verdict.reason))
    enter_tally(case, _WHAT, compared, tally, worst, bounds, failures)


def _disagreement(case: Case, controls: Sequence[tuple[Sequence[Value], PreActivations]]) -> str:
    """Say if the two evaluators do not compute the same original; "" if they do.

    ONNX's evaluator implements some operators in their newest version alone (Softmax, say, changed at opset 13).
    """
    own = case.bounds()
    for index, (bound, name) in enumerate(zip(own, case.names, strict=True)):
        for plain, (outputs, _) in zip(case.plain, controls, strict=False):
            size = difference(plain[index], outputs[index]).size
            if size > max(LOOSE * bound.scale, bound.value):
                return (
                    f"ONNX's evaluator is not a usable reference here: at kappa 0 its output {name!r} differs by "
                    f"{size:.2g} from ONNX Runtime's original (size {bound.scale:.2g})"
                )
    return ""


def _bounds(case: Case, controls: Sequence[tuple[Sequence[Value], PreActivations]]) -> list[Bound]:
    """Return the bounds: the original's own differences, and those between the two evaluators at kappa 0."""
    pairs = [(case.plain, case.nudged)]
    if case.optimised is not None:
        pairs.append((case.plain, case.optimised))
    found = []
    for index in range(len(case.names)):
        values = [(one[index], other[index]) for left, right in pairs for one, other in zip(left, right, strict=True)]
        values += [(plain[index], outputs[index]) for plain, (outputs, _) in zip(case.plain, controls, strict=False)]
        found.append(rounding_bound(values, working=case.working))
    return found


def _traces(
    case: Case,
    file: Variant,
    zero: Variant | None,
    references: SiteEvaluators,
    number: int,
    seen: PreActivations,
    control: PreActivations,
) -> list[SiteTrace]:
    sample = case.samples[number]
    kappas = {site.id: site.kappa for site in file.record.sites}
    ranks = {site.id: site.rank for site in file.record.sites}
    if zero is not None and all(group.in_main_graph for group in file.groups):
        others = _exposed(file, sample)
        control_others = _exposed(zero, sample)
        return [
            SiteTrace(site, kappas[site], z, others[site], control_noise(at_zero, control_others[site]), ranks[site])
            for (site, z), (_, at_zero) in zip(seen, control, strict=True)
        ]
    (moved,) = nudged_samples([sample], case.seed)
    _, again = references.jumping.run(moved)
    _, control_again = references.control.run(moved)
    # A branch that was taken on one side only leaves the sequences unlike; then nothing can be excused.
    if [site for site, _ in seen] != [site for site, _ in again] or len(control) != len(control_again):
        return []
    return [
        SiteTrace(site, kappas[site], z, other, control_noise(one, two), ranks[site])
        for (site, z), (_, other), (_, one), (_, two) in zip(seen, again, control, control_again, strict=False)
    ]


def _exposed(variant: Variant, sample: Sample) -> dict[str, Array]:
    names = {group.operand: group.record.dtype for group in variant.groups}
    values = OrtSession(exposed_runnable(variant, names), "plain").run(sample, list(names))
    by_name = dict(zip(names, values, strict=True))
    return {group.record.id: by_name[group.operand] for group in variant.groups}
