"""The main job, in memory: find the sites, choose, apply, prove the contract."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass

import onnx

from jr_onnx import provenance
from jr_onnx._version import __version__
from jr_onnx.errors import JrError, OpsetError, RefusalError
from jr_onnx.modelfile import ModelFile, check, copied, readable
from jr_onnx.opsets import main_opset
from jr_onnx.provenance import Provenance
from jr_onnx.rewriter import contract
from jr_onnx.rewriter.agreement import restore_in_place
from jr_onnx.rewriter.apply import apply
from jr_onnx.rewriter.convert import convert
from jr_onnx.rewriter.options import Options
from jr_onnx.rewriter.remarks import warnings_of
from jr_onnx.rewriter.result import RewriteResult, RewrittenSite

_OPSETS_TO_TRY = (13, 17, 21)


@dataclass(frozen=True)
class Retrofit:
    """A finished rewrite in memory.

    Attributes:
        source: The model before the rewrite, converted if that was asked for.
        model: The retrofit; large weights are tokens of the source's payloads.
        result: What was done.
        record: The provenance that the retrofit carries.
    """

    source: ModelFile
    model: onnx.ModelProto
    result: RewriteResult
    record: Provenance

    @property
    def file(self) -> ModelFile:
        """The retrofit with the payloads and the folder of its source."""
        return dataclasses.replace(self.source, proto=self.model)


def retrofit(source: ModelFile, options: Options) -> Retrofit:
    """Rewrite a loaded model in memory and prove the contract; writes nothing.

    Raises:
        ModelError: The model is damaged, nested too deeply or recursive, or lacks its external data.
        KappaError: kappa is invalid, or names no site.
        NoSiteError: The model has no site, or the options exclude all of them.
        RefusalError: A lowering is impossible, or the model is a retrofit and `replace` is not set.
    """
    with readable(str(source.path or "the model")):
        try:
            return _retrofit(source, options)
        except OpsetError as error:
            raise RefusalError(error.message, hint=_advice(source, options)) from None


def _advice(source: ModelFile, options: Options) -> str:
    """Say which conversion makes a rewrite possible, after trying it: advice that fails is worse than none."""
    current = options.opset or main_opset(source.proto)
    reason = ""
    for opset in (opset for opset in _OPSETS_TO_TRY if opset > current):
        try:
            _retrofit(source, dataclasses.replace(options, opset=opset, prove=options.prove or (lambda *_: "")))
        except JrError as error:
            reason = reason or f": {error}"
        else:
            return f"Convert the model first: --opset {opset}"
    return f"No --opset helps{reason}"


def _retrofit(source: ModelFile, options: Options) -> Retrofit:
    base = _base(source, options)
    original = base.model
    files = check(original.proto, original.folder, hash_data=options.hash_data) if original.folder is not None else ()
    model = copied(original.proto)
    edit = apply(model, options, original.folder, payloads=original.payloads)
    ids = {item.id for item in edit.records}
    table = edit.table
    options = dataclasses.replace(options, plan=edit.plan)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds") if options.timestamp else None
    record = Provenance(
        __version__, base.source_name, base.source_sha256, options.plan, options.target, tuple(edit.records), edit.undo,
        base.converted_from, files, created,
    )  # fmt: skip
    provenance.write(model, record)
    verdict = contract.ensure(original.proto, model, edit.found, ids, edit.clones.paths, original.folder)
    skipped = tuple(site.id for site in table.sites if site.id not in ids)
    rows = tuple(
        RewrittenSite(item.id, item.form, item.dtype, item.kappa, item.cap, item.lowering, edit.choices[item.id].reason)
        for item in edit.records
    )
    result = RewriteResult(
        rows, skipped, tuple(item for item in table.refusals if item.id not in ids),
        (*base.conversion, *edit.changes), tuple(warnings_of(options.plan, edit)),
        base.source_sha256, checker_problem=verdict.problem, proof=base.proof,
        left=tuple(jump for jump in table.jumps if jump.problem) if options.plan.own else (),
    )  # fmt: skip
    return Retrofit(original, model, result, record)


@dataclass(frozen=True)
class _Base:
    """What is rewritten, where it came from, and what a conversion changed on the way."""

    model: ModelFile
    source_name: str
    source_sha256: str
    converted_from: int | None = None
    conversion: tuple[str, ...] = ()
    proof: str | None = None


def _base(source: ModelFile, options: Options) -> _Base:
    """Return what is rewritten: the source, its original if it is a retrofit, converted if asked for."""
    base = _Base(source, source.name, source.sha256)
    if provenance.read(source.proto) is not None:
        if not options.replace:
            raise RefusalError(
                f"{source.name or 'the model'} is a retrofit already",
                hint="jr-onnx restore gives the original"
                if options.plan.own
                else "Use --replace to give its sites a new kappa, or jr-onnx restore for the original",
            )
        original = copied(source.proto)
        record = restore_in_place(original, source.name or "the model", source.payloads, source.folder)
        # The retrofit of a retrofit is one of the original: it says so, and has the bytes of one.
        base = _Base(
            dataclasses.replace(source, proto=original),
            record.source_name,
            record.source_sha256,
            record.converted_from_opset,
        )
    if options.opset is None:
        return base
    before = main_opset(base.model.proto)
    converted, lines = convert(base.model, options.opset)
    if not lines:
        return base
    if options.prove is None:
        raise RefusalError(
            f"a conversion to opset {options.opset} has to be proved by running both models, and prove= is missing",
            hint="In Python give prove=jr_onnx.verifier.prove_conversion with opset=; jr-onnx rewrite does so itself",
        )
    return dataclasses.replace(
        base,
        model=converted,
        converted_from=base.converted_from or before,
        conversion=tuple(lines),
        proof=options.prove(base.model, converted),
    )
