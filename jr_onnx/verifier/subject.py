"""What is verified: the retrofit and its original, and the proof that they belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from jr_onnx.errors import InputError, KappaError
from jr_onnx.kappa import Kappa
from jr_onnx.modelfile import ModelFile, assemble, content_digest, resolve
from jr_onnx.provenance import Provenance, is_hardened, sha256_file
from jr_onnx.quantised import is_quantised
from jr_onnx.rewriter.convert import convert
from jr_onnx.rewriter.differences import differences
from jr_onnx.rewriter.pair import kappa_missing, open_pair, read_model
from jr_onnx.rewriter.scopes import main_scope
from jr_onnx.semantics import round_kappa
from jr_onnx.verifier.expressions import recorded_kappas
from jr_onnx.verifier.report import Check, Failure, Verdict

_SHOWN = 3
_ORIGINAL = "original"


@dataclass(frozen=True)
class Subject:
    """A retrofit, its original and its provenance.

    Attributes:
        retrofit: The retrofit; of a file, its own bytes are verified.
        record: Its provenance.
        original: What it is compared with: the given original, else the one restored from the provenance.
        how: Where the original came from, as text.
        given_as: path (the bytes of that file are the subject), proto, or plain (rewritten here).
        checks: That the two belong together.
        failures: Where they do not.
        unconverted: The given original as it was before its opset was converted; None where nothing was converted.
    """

    retrofit: ModelFile
    record: Provenance
    original: ModelFile
    how: str
    given_as: str
    checks: tuple[Check, ...]
    failures: tuple[Failure, ...]
    unconverted: ModelFile | None = None


def load_subject(
    model: str | Path | onnx.ModelProto, original: str | Path | onnx.ModelProto | None, kappa: Kappa | None
) -> Subject:
    """Load a retrofit and its original, or rewrite a plain model in memory.

    Raises:
        InputError: A plain model without kappa, or a retrofit with one.
        ModelError: A file is not a usable model.
    """
    pair = open_pair(model, kappa, report_mismatches=True)
    source, record, restored = pair.retrofit, pair.record, pair.original
    if original is not None and is_hardened(pair.given.proto):
        _refuse_untrained(pair.given, read_model(original))
    if source is None or record is None:
        raise kappa_missing(pair.given.name)
    if not pair.is_retrofit:
        if original is not None:
            raise InputError(
                f"ORIGINAL was given, but {pair.given.name or 'the model'} is not a retrofit",
                hint="Leave one of the two out",
            )
        return Subject(source, record, pair.original, "the model itself", "plain", (), ())
    plan_failures = _plan_failures(record)
    graph_failures = [Failure("provenance", item.site, "", "", "", item.message) for item in pair.mismatches]
    checks = [_plan_check(record, plan_failures), _graph_check(record, graph_failures)]
    failures = [*plan_failures, *graph_failures]
    truth, how = restored, "restored from the provenance"
    unconverted: ModelFile | None = None
    if original is None:
        checks.append(_digest_check(restored, record))
    else:
        given = read_model(original)
        if is_quantised(source.proto) and not is_quantised(given.proto):
            raise InputError(
                f"ORIGINAL{_named(given)} is a float model, and the retrofit{_named(source)} was quantised after the "
                "rewrite",
                hint="Leave ORIGINAL out: the quantised original is restored from the file",
            )
        unconverted = given if record.converted_from_opset is not None else None
        truth, how = _converted_alike(given, restored, record), f"given ({given.name or 'a model in memory'})"
        compared, failure = _compare_originals(truth, restored, record, given.sha256)
        checks.append(compared)
        failures.extend(failure)
    data_check, data_failures = _external_data(source, record)
    checks.extend(data_check)
    failures.extend(data_failures)
    given_as = "proto" if source.path is None else "path"
    return Subject(source, record, truth, how, given_as, tuple(checks), tuple(failures), unconverted)


def _refuse_untrained(trained: ModelFile, original: ModelFile) -> None:
    if not is_hardened(original.proto):
        raise InputError(
            f"jr-onnx harden trained the weights of the model{_named(trained)}, and ORIGINAL{_named(original)} has "
            "those from before the training",
            hint="Leave ORIGINAL out; jr-onnx harden --evaluate compares the two files",
        )


def _named(model: ModelFile) -> str:
    return f" ({model.name})" if model.name else ""


def _plan_failures(record: Provenance) -> list[Failure]:
    """Return the sites whose recorded kappa is not what the recorded plan rounds to."""
    if record.plan.own:
        return []  # the plan holds no kappas: the graph check reads them from the original again
    found = []
    try:
        plan = recorded_kappas(record.plan, [site.id for site in record.sites])
    except KappaError as error:
        return [Failure("provenance", "", "", "", "", error.message)]
    for site in record.sites:
        wanted = plan[site.id]
        expected = round_kappa(wanted, site.dtype) if wanted is not None else None
        if expected != site.kappa:
            shown = "no kappa" if expected is None else repr(expected)
            found.append(Failure("provenance", site.id, "", shown, repr(site.kappa), "the plan and the site disagree"))
    return found


def _plan_check(record: Provenance, failures: list[Failure]) -> Check:
    verdict: Verdict = "failed" if failures else "passed"
    return Check("provenance", "the kappa of every site with the plan", len(record.sites), 0.0, None, 0, verdict)


def _graph_check(record: Provenance, failures: list[Failure]) -> Check:
    verdict: Verdict = "failed" if failures else "passed"
    compared = "the graph with the recorded rewrite, done again"
    return Check("provenance", compared, len(record.sites), 0.0, None, 0, verdict)


def _content_digest(model: ModelFile) -> str:
    return content_digest(model.proto, model.payloads)[0]


def _digest_check(restored: ModelFile, record: Provenance) -> Check:
    compared = "the restored model with the recorded digest"
    if record.converted_from_opset is not None:
        detail = f"the source was converted from opset {record.converted_from_opset}; give ORIGINAL to compare"
        return Check(_ORIGINAL, compared, 0, 0.0, None, 0, "not run", detail)
    if _content_digest(restored) == record.source_sha256:
        return Check(_ORIGINAL, compared, 1, 0.0, None, 0, "passed")
    detail = "the digest is of the file's own bytes, which need not be in canonical order; give ORIGINAL to compare"
    return Check(_ORIGINAL, compared, 0, 0.0, None, 0, "not run", detail)


def _converted_alike(given: ModelFile, restored: ModelFile, record: Provenance) -> ModelFile:
    if record.converted_from_opset is None:
        return given
    converted, _ = convert(given, main_scope(restored.proto).opset)
    return converted


def _compare_originals(
    truth: ModelFile, restored: ModelFile, record: Provenance, sha256: str
) -> tuple[Check, list[Failure]]:
    compared = "ORIGINAL with the model restored from the retrofit"
    if _content_digest(truth) == _content_digest(restored):
        detail = (
            "" if sha256 == record.source_sha256 else "the same model in other bytes than those that were rewritten"
        )
        return Check(_ORIGINAL, compared, 1, 0.0, None, 0, "passed", detail), []
    lines = differences(assemble(truth.proto, truth.payloads), assemble(restored.proto, restored.payloads))
    failures = [Failure(_ORIGINAL, "", "", "", "", line) for line in lines[:_SHOWN]]
    if not failures:
        failures = [Failure(_ORIGINAL, "", "", "", "", "unknown fields differ")]
    detail = f"{len(lines)} fields differ"
    return Check(_ORIGINAL, compared, 1, 0.0, None, 0, "failed", detail), failures


def _external_data(source: ModelFile, record: Provenance) -> tuple[list[Check], list[Failure]]:
    """Compare external files with what the provenance recorded of them."""
    if not record.external_data or source.folder is None:
        return [], []
    failures = []
    hashed = 0
    for item in record.external_data:
        path = resolve(source.folder, item.location)
        if not path.is_file():
            failures.append(_data_failure(item.location, "a file", "none"))
        elif path.stat().st_size != item.length_bytes:
            failures.append(_data_failure(item.location, f"{item.length_bytes} bytes", f"{path.stat().st_size} bytes"))
        elif item.sha256 is not None:
            hashed += 1
            found = sha256_file(path)
            if found != item.sha256:
                failures.append(_data_failure(item.location, item.sha256, found))
    count = len(record.external_data)
    detail = f"{hashed} of {count} hashed" + ("" if hashed else "; rewrite with --hash-data records digests")
    verdict: Verdict = "failed" if failures else "passed"
    return [Check("external data", "files with the provenance", count, 0.0, None, 0, verdict, detail)], failures


def _data_failure(location: str, expected: str, found: str) -> Failure:
    return Failure("external data", "", location, expected, found, "the file changed since the rewrite")
