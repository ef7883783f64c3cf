"""The whole verification: load, compare at both levels, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from jr_onnx._version import __version__
from jr_onnx.data import required_inputs
from jr_onnx.errors import InputError, VerificationError, require
from jr_onnx.kappa import Kappa, KappaPlan
from jr_onnx.runtime.providers import full_name, require_providers
from jr_onnx.verifier.evaluators import device
from jr_onnx.verifier.evaluators.device import DEVICES, Device, on_device
from jr_onnx.verifier.evaluators.errors import CannotLoadError, CannotRunError, LackingError
from jr_onnx.verifier.evaluators.ort import OrtSession, Runnable, loads
from jr_onnx.verifier.inputs import GivenInputs, InputOptions, Inputs, InputsError, Sample, given_inputs, make_inputs
from jr_onnx.verifier.report import Check, Failure, VerifyReport, conclude
from jr_onnx.verifier.sites.check import check_sites
from jr_onnx.verifier.sites.draws import check_draws, check_kappa_input, kappa_in_words
from jr_onnx.verifier.sites.own_jumps import check_own_jumps
from jr_onnx.verifier.subject import Subject, load_subject
from jr_onnx.verifier.variants import Variant, control_kappas, variants
from jr_onnx.verifier.whole_model.case import Case, CheckLog, evaluate_original, is_deterministic, output_names
from jr_onnx.verifier.whole_model.in_place import check_sites_in_place
from jr_onnx.verifier.whole_model.lowerings import check_conversion, check_lowerings, check_optimisation, check_zero
from jr_onnx.verifier.whole_model.reference_only import check_without_ort
from jr_onnx.verifier.whole_model.reference_run import check_reference
from jr_onnx.verifier.whole_model.served import check_served
from jr_onnx.verifier.whole_model.steps import StepEffects

DEFAULT_SAMPLES = 8
DEFAULT_REFERENCE_SAMPLES = 1
_WHOLE = "whole model"


@dataclass(frozen=True)
class _Members:
    """The models of one verification: the subject, it in other lowerings, and all of them at kappa 0."""

    subject: Subject
    file: Variant
    others: Sequence[Variant]
    zeros: Sequence[Variant]
    sound: bool
    library: bool


@dataclass(frozen=True)
class _Wanted:
    """Which inputs, and how many."""

    inputs: GivenInputs | None
    samples: int
    reference_samples: int
    input_options: InputOptions


def verify(
    model: str | Path | onnx.ModelProto,
    original: str | Path | onnx.ModelProto | Kappa | None = None,
    kappa: Kappa | None = None,
    *,
    inputs: GivenInputs | None = None,
    samples: int = DEFAULT_SAMPLES,
    reference_samples: int = DEFAULT_REFERENCE_SAMPLES,
    input_options: InputOptions | None = None,
    provider: Device = "cpu",
) -> VerifyReport:
    """Prove that a retrofit computes what it should; see docs/verify.md for what is compared with what.

    Args:
        model: A retrofit (path or ModelProto), or a plain model together with `kappa`.
        original: The model before the rewrite; without it, it is restored from the retrofit's provenance. Earlier
            releases took kappa here, so what can only be a kappa still is one.
        kappa: For a plain model: it is rewritten in memory with every possible lowering.
        inputs: Inputs for the whole model, one mapping or several; random ones by default.
        samples: How many random or real inputs.
        reference_samples: How many of them ONNX's reference evaluator computes too; it is slow.
        input_options: Shapes, values, batch size, data and seed of inputs.
        provider: Where ONNX Runtime computes: cpu, or cuda.

    Returns:
        The report; true if the model ran and everything that could be compared agreed. `conclusion` is the verdict:
        verified, failed, or model not run.

    Raises:
        InputError: The arguments contradict each other, or the provider does not work here.
        InputsError: The original does not run on the inputs.
        ModelError: A file is not a usable model.
        NoSiteError: A plain model has no site.
        MissingExtraError: onnxruntime is not installed.
    """
    require("onnxruntime", "cpu")
    if samples < 1:
        raise InputError(f"samples must be >= 1, found {samples} samples")
    if reference_samples < 0:
        raise InputError(f"reference samples must be >= 0, found {reference_samples}")
    if original is not None and not isinstance(original, str | Path | onnx.ModelProto):
        original, kappa = None, original if kappa is None else kappa
    if provider not in DEVICES:
        raise InputError(f"the provider is {provider!r}, expected one of {', '.join(DEVICES)}")
    require_providers([full_name(provider)])
    wanted = _Wanted(inputs, samples, reference_samples, input_options or InputOptions())
    with on_device(provider):
        return _verify(load_subject(model, original, kappa), wanted)


def _verify(subject: Subject, wanted: _Wanted) -> VerifyReport:
    log = CheckLog(list(subject.checks), list(subject.failures))
    library = _library_works(log)
    file = _subject_variant(subject)
    own = subject.record.plan.own
    kappas = tuple((site.id, site.kappa) for site in subject.record.sites)
    others, refused = variants(subject.original, subject.record.plan if own else KappaPlan(by_site=kappas))
    zeros = others  # of jumps that the original has itself: with their own thresholds it computes the same
    if not own:
        zeros, _ = variants(subject.original, KappaPlan(by_site=tuple(control_kappas(subject.record).items())))
    family = [file, *others]
    if library:
        others = others + [item.with_library() for item in family if item.uses_custom]
        zeros = zeros + [item.with_library() for item in zeros if item.uses_custom]
    if own:
        checks, failures = check_own_jumps(subject.original, subject.record, wanted.input_options.seed)
        log.checks.extend(checks)
        log.failures.extend(failures)
    sound = _check_all_sites([file, *others], log, wanted.input_options.seed)
    members = _Members(subject, file, others, zeros, sound=sound, library=library)
    used = _check_whole_model(members, log, wanted)
    return VerifyReport(
        model=subject.retrofit.name,
        sha256=subject.retrofit.sha256,
        original=subject.how,
        kappa=kappa_in_words(subject.record),
        sites=len(kappas),
        lowerings=tuple(dict.fromkeys(item.name for item in [file, *others])),
        refused_lowerings=tuple(refused),
        samples=len(used.samples),
        inputs=used.description,
        seed=wanted.input_options.seed,
        backends=_backends(library),
        checks=tuple(log.checks),
        failures=tuple(log.failures),
        notes=tuple(log.notes),
        not_loaded=log.not_loaded,
        broken=log.broken,
        conclusion=conclude(log.checks, log.failures, broken=log.broken),
    )


def _subject_variant(subject: Subject) -> Variant:
    name = {"path": "the file", "proto": "the model", "plain": "auto"}[subject.given_as]
    runnable = Runnable(name, subject.retrofit, as_file=subject.given_as == "path")
    return Variant(name, runnable, subject.record, subject.original.proto)


def _library_works(log: CheckLog) -> bool:
    """Tell whether the op library can take part; a note says why not."""
    from jr_onnx.runtime.ops_library import status

    found = status(device.target(), device.provider())
    if not found.loadable:
        log.notes.append(f"the op library does not take part: {found.reason}")
    return found.loadable


def _backends(library: bool) -> tuple[str, ...]:
    ort = require("onnxruntime", "cpu")
    own = f"jr-onnx {__version__}"
    return (
        own,
        f"onnxruntime {ort.__version__} ({device.target().upper()})",
        f"onnx {onnx.__version__}",
        f"NumPy {np.__version__}",
    ) + (("jr_onnx op library",) if library else ())


def _check_all_sites(members: Sequence[Variant], log: CheckLog, seed: int) -> bool:
    """Check the sites of every retrofit; return whether the file's sites are where its provenance says."""
    sound = True
    for position, member in enumerate(members):
        try:
            groups = [group for group in member.groups if not group.draws]
        except VerificationError as error:
            log.failures.append(Failure(f"sites of {member.name}", "", "", "", "", error.message))
            log.not_run(f"sites of {member.name}", "NumPy's J", error.message)
            sound = sound and position != 0
            continue
        checks, failures = check_sites(member.name, member.proto, groups, library=member.runnable.library, seed=seed)
        log.checks.extend(checks)
        log.failures.extend(failures)
        if any(group.draws for group in member.groups):
            check_draws(member, log)
    return sound


def _check_whole_model(members: _Members, log: CheckLog, wanted: _Wanted) -> Inputs:
    """Compare whole models and return the inputs that were used."""
    subject, input_options = members.subject, wanted.input_options
    original = Runnable("the original", subject.original)
    try:
        session = OrtSession(original, "plain")
    except CannotLoadError as error:
        log.not_loading(error)
        if subject.unconverted is not None and loads(Runnable("ORIGINAL", subject.unconverted)):
            _enter_not_loading(log, error)
        log.not_run(_WHOLE, "ONNX Runtime", error.message)
        if log.broken:  # another evaluator's result proves nothing
            return Inputs([], "none")
        count = max(1, wanted.reference_samples)
        return check_without_ort(
            subject, members.file, members.others, members.zeros, log, wanted.inputs, count, input_options
        )
    used = _choose_inputs(subject, session, wanted)
    del session
    try:
        steady = is_deterministic(original, used.samples[0])
        plain, optimised, nudged = evaluate_original(original, used.samples, input_options.seed)
    except CannotRunError as error:
        raise InputsError(f"the original does not run on these inputs: {error.message}") from None
    names = output_names(subject.original.proto)
    case = Case(
        subject, original, used.samples, names, plain, optimised, nudged, members.library, log, input_options.seed,
        StepEffects(members.file.runnable, names),
    )  # fmt: skip
    if steady:
        check_conversion(case)
        check_zero(case, members.zeros)
    if _loads(members, log, used, wanted) and _same_interface(subject, log):
        if steady:
            _check_at_kappa(case, members, wanted.reference_samples)
        elif members.sound:
            reason = "the original draws random numbers, two runs of it differ"
            log.not_run("whole model, outputs", "ONNX Runtime", reason)
            check_sites_in_place(case, members.file, alone=reason)
    return used


def _same_interface(subject: Subject, log: CheckLog) -> bool:
    """Tell whether retrofit and original take and give values of the same names; else nothing can be compared."""
    before, after = subject.original.proto, subject.retrofit.proto
    for what, one, other in (
        (
            "inputs",
            _input_names(before),
            [name for name in _input_names(after) if name != subject.record.plan.input_name],
        ),
        ("outputs", output_names(before), output_names(after)),
    ):
        if one != other:
            reason = "the retrofit is not of this original, or was edited since"
            log.add(
                Check(_WHOLE, f"{what} of the file with the original's", 0, float("inf"), None, 0, "failed", reason),
                Failure(_WHOLE, "", "", ", ".join(one) or "none", ", ".join(other) or "none", f"{what}; {reason}"),
            )
            return False
    return True


def _input_names(model: onnx.ModelProto) -> list[str]:
    return [item.name for item in required_inputs(model)]


def _loads(members: _Members, log: CheckLog, used: Inputs, wanted: _Wanted) -> bool:
    """Tell whether ONNX Runtime loads the subject, as it loads the original."""
    try:
        OrtSession(members.file.runnable, "plain")
    except CannotLoadError as error:
        log.not_loading(error)
        # Whatever the cause: a retrofit that does not load where the original does cannot replace it.
        _enter_not_loading(log, error)
        if isinstance(error, LackingError):
            given = used.samples[: max(1, wanted.reference_samples)]
            check_without_ort(members.subject, members.file, (), (), log, given, len(given), wanted.input_options)
        return False
    return True


def _enter_not_loading(log: CheckLog, error: CannotLoadError) -> None:
    log.add(
        Check(_WHOLE, "ONNX Runtime", 0, float("inf"), None, 0, "failed", error.message),
        Failure(_WHOLE, "", "", "the original loads", "the retrofit does not", error.message),
    )


def _check_at_kappa(case: Case, members: _Members, reference_samples: int) -> None:
    file, subject = members.file, members.subject
    # The control needs a kernel, which thresholded lacks for double.
    zero = next((item for item in members.zeros if not item.name.startswith("thresholded")), None)
    random = subject.record.plan.random
    draws = random is not None and random.source != "input"
    if draws:
        case.log.notes.append("kappa is drawn in every run, so whole outputs are not compared, sites in place are")
    else:
        outputs = check_lowerings(case, file, members.others, members.zeros, sound=members.sound)
        if members.sound:
            check_optimisation(case, file, zero, outputs)
            check_served(case, file, members.zeros, outputs.get("plain"))
    if not members.sound:
        return
    check_sites_in_place(case, file)
    if not draws:
        check_reference(case, file, zero, reference_samples)
    if subject.record.undo.inputs_added:
        check_kappa_input(case, file)


def _choose_inputs(subject: Subject, session: OrtSession, wanted: _Wanted) -> Inputs:
    if wanted.inputs is not None:
        return given_inputs(wanted.inputs)

    def try_out(sample: Sample) -> None:
        session.run(sample)

    return make_inputs(subject.original.proto, wanted.samples, wanted.input_options, try_out)
