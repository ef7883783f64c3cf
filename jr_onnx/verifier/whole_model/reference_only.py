"""What ONNX Runtime cannot load here (bfloat16 on the CPU, old operators), in ONNX's reference evaluator alone.

Every lowering against the original with NumPy's J at its sites, in the same evaluator, value for value. This is
reported as what it is: nothing ran on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

from jr_onnx.verifier.compare import NO_DIFFERENCE, difference
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError
from jr_onnx.verifier.evaluators.form import evaluator_form
from jr_onnx.verifier.evaluators.reference import OnnxEvaluator, SiteEvaluator
from jr_onnx.verifier.evaluators.weights import with_weights
from jr_onnx.verifier.inputs import GivenInputs, InputOptions, Inputs, InputsError, Sample, given_inputs, make_inputs
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.subject import Subject
from jr_onnx.verifier.variants import Variant, control_kappas, control_label
from jr_onnx.verifier.whole_model.case import CheckLog
from jr_onnx.verifier.whole_model.marked import marked

_WHAT = "whole model, reference"


def check_without_ort(
    subject: Subject,
    file: Variant,
    others: Sequence[Variant],
    zeros: Sequence[Variant],
    log: CheckLog,
    inputs: GivenInputs | None,
    count: int,
    input_options: InputOptions,
) -> Inputs:
    """Compare all lowerings in the reference evaluator and return the inputs that were used."""
    record = subject.record
    caps = {site.id: site.cap for site in record.sites}
    try:
        proto = evaluator_form(marked(with_weights(subject.original), set(caps), subject.original.folder))
        ranks = {site.id: site.rank for site in record.sites}
        jumping = SiteEvaluator(proto, {site.id: site.kappa for site in record.sites}, caps, ranks)
        control = SiteEvaluator(proto, control_kappas(record), caps, ranks)
    except CannotLoadError as error:
        log.not_run(_WHAT, "ONNX's reference evaluator", error.message)
        return Inputs([], "none")
    try:
        used = _inputs(subject, control, inputs, count, input_options)
    except InputsError as error:
        log.not_run(_WHAT, "ONNX's reference evaluator", str(error))
        return Inputs([], "none")
    members = [(member, jumping, "kappa") for member in (file, *others) if not member.runnable.library]
    members += [(member, control, control_label(record)) for member in zeros if not member.runnable.library]
    for member, reference, setting in members:
        _compare(member, reference, setting, used.samples, log)
    return used


def _inputs(
    subject: Subject, control: SiteEvaluator, inputs: GivenInputs | None, count: int, input_options: InputOptions
) -> Inputs:
    if inputs is not None:
        return given_inputs(inputs, count)

    def try_out(sample: Sample) -> None:
        control.run(sample)

    return make_inputs(subject.original.proto, count, input_options, try_out)


def _compare(member: Variant, reference: SiteEvaluator, setting: str, samples: Sequence[Sample], log: CheckLog) -> None:
    compared = f"{member.name} with NumPy's J at the sites, {setting}"
    worst = NO_DIFFERENCE
    failures: list[Failure] = []
    try:
        own = OnnxEvaluator(evaluator_form(with_weights(member.runnable.file)))
        for number, sample in enumerate(samples):
            expected, _ = reference.run(sample)
            for one, other in zip(expected, own.run(sample), strict=True):
                seen = difference(one, other)
                worst = max(worst, seen, key=lambda item: item.size)
                if seen and not failures:
                    given = f"sample {number}, output element {list(seen.index)}"
                    failures.append(Failure(_WHAT, "", given, seen.one, seen.other, setting))
    except (CannotLoadError, CannotRunError) as error:
        log.not_run(_WHAT, compared, error.message)
        return
    verdict: Verdict = "failed" if failures else "passed"
    detail = "in ONNX's reference evaluator; not run on ONNX Runtime"
    log.add(Check(_WHAT, compared, len(samples), worst.size, None, 0, verdict, detail), *failures)
