"""The main job: find the sites, choose, apply, prove the contract, write. One function for files, protos and graphs."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import onnx

from jr_onnx import provenance
from jr_onnx._version import __version__
from jr_onnx.errors import InputError, JrError, OpsetError, OutputError, RefusalError, require_choice
from jr_onnx.kappa import Kappa, KappaPlan
from jr_onnx.modelfile import (
    ExternalMode,
    ModelFile,
    carry,
    check,
    copied,
    from_proto,
    load,
    readable,
    refuse_target,
    save,
)
from jr_onnx.provenance import Provenance
from jr_onnx.records import Record
from jr_onnx.rewriter import contract
from jr_onnx.rewriter.agreement import take_back
from jr_onnx.rewriter.apply import Wish, apply
from jr_onnx.rewriter.convert import Prover, convert
from jr_onnx.rewriter.lowering import LoweringWish, Target
from jr_onnx.rewriter.remarks import warnings_of
from jr_onnx.rewriter.scopes import main_opset
from jr_onnx.rewriter.selection import Selection, select
from jr_onnx.rewriter.sites import Refusal

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

DEFAULT_SUFFIX = ".jr.onnx"
_OPSETS_TO_TRY = (13, 17, 21)


@dataclass(frozen=True, slots=True)
class RewrittenSite(Record):
    """One row of a result: what a site is now."""

    SCHEMA: ClassVar[str] = "jr_onnx.rewritten_site/1"
    id: str
    form: str
    dtype: str
    kappa: float
    cap: float | None
    lowering: str
    reason: str


@dataclass(frozen=True, slots=True)
class RewriteResult(Record):
    """What a rewrite did.

    Attributes:
        sites: The rewritten sites, in graph order.
        skipped: Ids of sites that the plan or the filters left alone.
        refusals: ReLUs that cannot be rewritten, and gates and clamps that were left alone.
        changes: Everything beside the sites that changed, in words.
        warnings: What the user should know.
        source_sha256: Digest of the source.
        output: Path of the written file, None for protos and dry runs.
        external_data: How external data came to the output: none, reference, reflink, copy or hardlink.
        checker_problem: What onnx.checker has against the source and the result alike, None if nothing.
        proof: How it was proved that a conversion to another opset computes the same, None without a conversion.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.rewrite_result/1"
    sites: tuple[RewrittenSite, ...]
    skipped: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    source_sha256: str
    output: str | None = None
    external_data: str = "none"
    checker_problem: str | None = None
    proof: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to rewrite; see `rewrite` for the meaning of each."""

    plan: KappaPlan
    lowering: LoweringWish = "auto"
    target: Target = "portable"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    opset: int | None = None
    prove: Prover | None = None
    demote_initializer_inputs: bool = False
    replace: bool = False
    hash_data: bool = False
    timestamp: bool = False

    def __post_init__(self) -> None:
        """Refuse words that mean nothing, and take one filter for a sequence of one."""
        require_choice("lowering", self.lowering, get_args(LoweringWish))
        require_choice("target", self.target, get_args(Target))
        opset: object = self.opset
        if opset is not None and not isinstance(opset, int):
            raise InputError(f"opset is {opset!r}, expected a whole number")
        for name in ("include", "exclude"):
            value = getattr(self, name)
            # A string is a sequence too, of patterns of one letter each that match nearly everything.
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))


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


def rewrite(
    model: str | Path | onnx.ModelProto | gs.Graph,
    kappa: Kappa,
    *,
    output: str | Path | None = None,
    force: bool = False,
    external_data: ExternalMode = "auto",
    **options: Any,
) -> tuple[Any, RewriteResult]:
    """Replace the ReLUs of a model by JumpReLU, and change nothing else.

    Args:
        model: A path, a ModelProto or an onnx-graphsurgeon Graph; the input itself is not changed.
        kappa: The jump for all sites, a mapping of site ids or regular expressions to jumps, a random range or a plan.
        output: For a path: where to write; by default `<name>.jr.onnx` beside the source.
        force: Replace an existing output.
        external_data: For a path: how external data comes to another folder: auto (reflink, else copy), copy,
            hardlink or reference.
        **options: lowering ("auto", "where", "thresholded", "custom"), target ("portable", "cpu", "cuda"),
            include and exclude (site ids, or regular expressions that are searched in them), opset (convert first)
            with prove (what proves the conversion: `jr_onnx.verify.prove_conversion`),
            demote_initializer_inputs, replace (retrofit a retrofit anew), hash_data, timestamp.

    Returns:
        The retrofitted model, of the kind that came in (a path for a path), and what was done.

    Raises:
        ModelError: The input is no usable model.
        KappaError: kappa is invalid, or names no site.
        InputError: An option has a value that means nothing.
        NoSiteError: There is no site, or none is left.
        RefusalError: A lowering is impossible, or the model is a retrofit and `replace` is not set.
        OutputError: The result cannot be written.
    """
    settings = Options(KappaPlan.of(kappa), **options)
    if isinstance(model, onnx.ModelProto):
        done = retrofit(from_proto(model), settings)
        return done.model, done.result
    if not isinstance(model, str | Path):
        from jr_onnx.rewriter.surgeon import rewrite_graph

        return rewrite_graph(model, settings)
    source = load(model)
    done = retrofit(source, settings)
    path = choose_output(source, output, force=force)
    result = write(done, path, external_data, force=force)
    return path, result


def retrofit(source: ModelFile, options: Options) -> Retrofit:
    """Rewrite a loaded model in memory and prove the contract; writes nothing.

    Raises:
        ModelError: The model is damaged, nested too deeply or recursive, or lacks its external data.
        KappaError: kappa is invalid, or names no site.
        NoSiteError: There is no site, or none is left.
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
    wish = Wish(options.plan, options.lowering, options.target, options.demote_initializer_inputs)
    selection = Selection(options.plan, options.include, options.exclude)
    edit = apply(model, lambda findings: select(findings.located, findings.table, selection), wish, original.folder)
    ids = {item.id for item in edit.records}
    table = edit.table
    if edit.undo is None or edit.plan is None:
        raise RefusalError("the rewrite recorded no way back")
    options = dataclasses.replace(options, plan=edit.plan)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds") if options.timestamp else None
    record = Provenance(
        __version__, base.source_name, base.source_sha256, options.plan, options.target, tuple(edit.records), edit.undo,
        base.converted_from, files, created,
    )  # fmt: skip
    provenance.write(model, record)
    verdict = contract.ensure(original.proto, model, edit.found, ids, edit.clones, original.folder)
    skipped = tuple(site.id for site in table.sites if site.id not in ids)
    rows = tuple(
        RewrittenSite(item.id, item.form, item.dtype, item.kappa, item.cap, item.lowering, edit.choices[item.id].reason)
        for item in edit.records
    )
    result = RewriteResult(
        rows, skipped, tuple(item for item in table.refusals if item.id not in ids),
        (*base.conversion, *edit.changes), tuple(warnings_of(options.plan, edit)),
        base.source_sha256, checker_problem=verdict.problem, proof=base.proof,
    )  # fmt: skip
    return Retrofit(original, model, result, record)


def write(done: Retrofit, path: Path, external_data: ExternalMode, *, force: bool) -> RewriteResult:
    """Write a finished rewrite; external data first, the model last, so that a model never lacks its data.

    Raises:
        InputError: There is no such way to carry external data.
        OutputError: Something is in the way or cannot be written.
    """
    require_choice("external_data", external_data, get_args(ExternalMode))
    how = "none"
    if done.source.folder is not None:
        how = carry(done.record.external_data, done.source.folder, path, external_data, force=force)
    save(done.model, done.source.payloads, path)
    warnings = done.result.warnings
    if how == "hardlink":
        warnings = (
            *warnings,
            "the external data has several hard links now: ONNX Runtime reads it, onnx.load refuses it, here and at "
            "the source, as a possible attack",
        )
    return dataclasses.replace(done.result, output=str(path), external_data=how, warnings=warnings)


def restore(
    model: str | Path | onnx.ModelProto,
    output: str | Path | None = None,
    *,
    force: bool = False,
    folder: Path | None = None,
) -> Any:
    """Give the original of a retrofit back, bit for bit in everything but the provenance.

    Args:
        model: A path or a ModelProto; the input itself is not changed.
        output: For a path: where to write; by default `<name>.restored.onnx` beside it.
        force: Replace an existing output.
        folder: For a ModelProto: the folder that its external data is relative to.

    Returns:
        A ModelProto for a ModelProto, the written path for a path.

    Raises:
        ModelError: The model is no retrofit, was optimised, or was changed so that a site is not where it was.
        RefusalError: The model's graph does not compute what its provenance says, so what comes back would be no
            original.
        OutputError: The result cannot be written.
    """
    if isinstance(model, onnx.ModelProto):
        copy = copied(model)
        with readable("the model"):
            take_back(copy, "the model", folder=folder)
        return copy
    source = load(model)
    path = choose_output(source, output, force=force, suffix=".restored.onnx")
    with readable(str(source.path)):
        record = take_back(source.proto, str(source.path), source.payloads, source.folder)
    if source.folder is not None:
        carry(record.external_data, source.folder, path, "auto", force=force)
    save(source.proto, source.payloads, path)
    return path


def choose_output(source: ModelFile, output: str | Path | None, *, force: bool, suffix: str = DEFAULT_SUFFIX) -> Path:
    """Return where to write.

    Raises:
        OutputError: The output is no place for a file, is the source itself, or exists and `force` is not set.
    """
    if source.path is None:
        raise OutputError("a model in memory has no path to write beside")
    path = Path(output) if output is not None else source.path.with_name(_stem(source.path.name) + suffix)
    if path.exists() and path.samefile(source.path):
        raise OutputError(f"the output {path} is the source itself", hint="Choose another output (-o)")
    refuse_target(path)
    if path.exists() and not force:
        raise OutputError(f"{path} exists", hint="Use --force to replace it, or choose another output (-o)")
    return path


def _stem(name: str) -> str:
    for ending in (DEFAULT_SUFFIX, ".onnx"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending)
    return name


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
                hint="Use --replace to give its sites a new kappa, or jr-onnx restore for the original",
            )
        original = copied(source.proto)
        record = take_back(original, source.name or "the model", source.payloads, source.folder)
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
            hint="In Python give prove=jr_onnx.verify.prove_conversion with opset=; jr-onnx rewrite does so itself",
        )
    return dataclasses.replace(
        base,
        model=converted,
        converted_from=base.converted_from or before,
        conversion=tuple(lines),
        proof=options.prove(base.model, converted),
    )
