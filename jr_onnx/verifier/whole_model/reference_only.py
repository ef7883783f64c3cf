"""What ONNX Runtime cannot load here (bfloat16 on the CPU, old operators), in ONNX's reference evaluator alone.

Every lowering against the original with NumPy's J at its sites, in the same evaluator, value for value. This is
reported as what it is: nothing ran on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from jr_onnx.errors import InputError, one_line
from jr_onnx.verifier.compare import NO_DIFFERENCE, difference
from jr_onnx.verifier.evaluators.form import evaluator_form
from jr_onnx.verifier.evaluators.older_operators import older_operators
from jr_onnx.verifier.evaluators.ort import CannotLoadError, CannotRunError, Recorder, Reference
from jr_onnx.verifier.evaluators.weights import with_weights
from jr_onnx.verifier.inputs import Inputs, InputsError, InputWish, Sample, make_inputs
from jr_onnx.verifier.report import Check, Failure, Verdict
from jr_onnx.verifier.subject import Subject
from jr_onnx.verifier.variants import Variant
from jr_onnx.verifier.whole_model.case import Findings
from jr_onnx.verifier.whole_model.marked import marked

_WHAT = "whole model, reference"


def check_without_ort(
    subject: Subject,
    file: Variant,
    others: Sequence[Variant],
    zeros: Sequence[Variant],
    findings: Findings,
    inputs: Any,
    count: int,
    wish: InputWish,
) -> Inputs:
    """Compare all lowerings in the reference evaluator and return the inputs that were used."""
    record = subject.record
    caps = {site.id: site.cap for site in record.sites}
    try:
        proto = evaluator_form(marked(with_weights(subject.original), set(caps), subject.original.folder))
        jumping = Reference(proto, Recorder({site.id: site.kappa for site in record.sites}, caps))
        control = Reference(proto, Recorder(dict.fromkeys(caps, 0.0), caps))
    except CannotLoadError as error:
        findings.not_run(_WHAT, "ONNX's reference evaluator", error.message)
        return Inputs([], "none")
    try:
        used = _inputs(subject, control, inputs, count, wish)
    except InputsError as error:
        findings.not_run(_WHAT, "ONNX's reference evaluator", str(error))
        return Inputs([], "none")
    members = [(member, jumping, "kappa") for member in (file, *others) if not member.runnable.library]
    members += [(member, control, "kappa 0") for member in zeros if not member.runnable.library]
    for member, reference, setting in members:
        _compare(member, reference, setting, used.samples, findings)
    return used


def _inputs(subject: Subject, control: Reference, inputs: Any, count: int, wish: InputWish) -> Inputs:
    if inputs is not None:
        given = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        if not given:
            raise InputError("the list of inputs is empty, expected one mapping of input names to arrays or more")
        return Inputs([dict(sample) for sample in given[:count]], "given")

    def try_out(sample: Sample) -> None:
        control.run(sample)

    return make_inputs(subject.original.proto, count, wish, try_out)


def _compare(
    member: Variant, reference: Reference, setting: str, samples: Sequence[Sample], findings: Findings
) -> None:
    compared = f"{member.name} with NumPy's J at the sites, {setting}"
    worst = NO_DIFFERENCE
    failures: list[Failure] = []
    try:
        own = _Plain(evaluator_form(with_weights(member.runnable.file)))
        for number, sample in enumerate(samples):
            expected, _ = reference.run(sample)
            for one, other in zip(expected, own.run(sample), strict=True):
                seen = difference(one, other)
                worst = max(worst, seen, key=lambda item: item.size)
                if seen and not failures:
                    given = f"sample {number}, output element {list(seen.index)}"
                    failures.append(Failure(_WHAT, "", given, seen.one, seen.other, setting))
    except (CannotLoadError, CannotRunError) as error:
        findings.not_run(_WHAT, compared, error.message)
        return
    verdict: Verdict = "failed" if failures else "passed"
    detail = "in ONNX's reference evaluator; not run on ONNX Runtime"
    findings.add(Check(_WHAT, compared, len(samples), worst.size, None, 0, verdict, detail), *failures)


class _Plain:
    """The reference evaluator on a model as it is, functions included."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        from onnx.reference import ReferenceEvaluator

        try:
            self._evaluator = ReferenceEvaluator(proto, new_ops=older_operators(proto))
        except Exception as error:
            raise CannotLoadError(f"ONNX's reference evaluator cannot load it: {one_line(error)}") from error

    def run(self, sample: Sample) -> list[Any]:
        try:
            with np.errstate(all="ignore"):
                outputs: Any = self._evaluator.run(None, dict(sample))
        except Exception as error:
            raise CannotRunError(f"ONNX's reference evaluator cannot run it: {one_line(error)}") from error
        return list(outputs)
