"""Rewrite and restore: one function each for files and models in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, get_args, overload

import onnx

from jr_onnx.errors import ModelError, OutputError, require_choice
from jr_onnx.kappa import Kappa, KappaPlan
from jr_onnx.modelfile import (
    ExternalMode,
    ModelFile,
    copied,
    from_proto,
    load,
    place_external_data,
    readable,
    refuse_target,
    save,
)
from jr_onnx.rewriter.agreement import restore_in_place
from jr_onnx.rewriter.convert import Prover
from jr_onnx.rewriter.differences import text_diff
from jr_onnx.rewriter.lowering import RequestedLowering, Target
from jr_onnx.rewriter.options import OptionKeywords, Options
from jr_onnx.rewriter.result import RewriteResult
from jr_onnx.rewriter.retrofit import Retrofit, retrofit

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

DEFAULT_SUFFIX = ".jr.onnx"
FUSED_SUFFIX = ".fused.onnx"


# A ModelProto first: without stubs of protobuf its base class is Any to a type checker, and it would pass for a path.
@overload
def rewrite(
    model: onnx.ModelProto, kappa: Kappa, *, diff: bool = False, **options: Unpack[OptionKeywords]
) -> tuple[onnx.ModelProto, RewriteResult]: ...


@overload
def rewrite(
    model: str | Path,
    kappa: Kappa,
    *,
    output: str | Path | None = None,
    force: bool = False,
    external_data: ExternalMode = "auto",
    dry_run: bool = False,
    diff: bool = False,
    **options: Unpack[OptionKeywords],
) -> tuple[Path, RewriteResult]: ...


@overload
def rewrite(
    model: gs.Graph, kappa: Kappa, *, diff: bool = False, **options: Unpack[OptionKeywords]
) -> tuple[gs.Graph, RewriteResult]: ...


def rewrite(
    model: str | Path | onnx.ModelProto | gs.Graph,
    kappa: Kappa,
    *,
    output: str | Path | None = None,
    force: bool = False,
    external_data: ExternalMode = "auto",
    dry_run: bool = False,
    diff: bool = False,
    lowering: RequestedLowering = "auto",
    target: Target = "portable",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    opset: int | None = None,
    prove: Prover | None = None,
    demote_initializer_inputs: bool = False,
    replace: bool = False,
    hash_data: bool = False,
    timestamp: bool = False,
) -> tuple[Path | onnx.ModelProto | gs.Graph, RewriteResult]:
    """Replace the ReLUs of a model with JumpReLU, and change nothing else.

    Args:
        model: A path, a ModelProto or an onnx-graphsurgeon Graph; the input itself is not changed.
        kappa: The jump for all sites, a mapping of site ids or regular expressions to jumps, a random range or a plan.
        output: For a path: where to write; by default `<name>.jr.onnx` beside the source.
        force: For a path: replace an existing output.
        external_data: For a path: how external data comes to another folder: auto (reflink, else copy), copy,
            hardlink or reference.
        dry_run: For a path: write nothing.
        diff: Put a unified diff of the nodes into the result.
        lowering: How J is written; "auto" chooses for each site.
        target: Where the model will run, which "auto" goes by.
        include: Rewrite only these sites: ids, or regular expressions that are searched in the ids. It also takes
            gates and clamps, which are left alone otherwise.
        exclude: Leave these sites alone.
        opset: Convert the model to this opset first; needs `prove`.
        prove: Proves that the converted model computes the same: `jr_onnx.verifier.prove_conversion`.
        demote_initializer_inputs: Take initializers off the graph inputs where the IR version must be raised.
        replace: The model is a retrofit: rewrite its original with the new kappa.
        hash_data: Record the SHA-256 of external data in the provenance.
        timestamp: Record the time in the provenance.

    Returns:
        The retrofitted model, of the kind that came in (a path for a path), and what was done.

    Raises:
        ModelError: The input is not a usable model.
        KappaError: kappa is invalid, or names no site.
        InputError: An option has an unknown value.
        NoSiteError: The model has no site, or the options exclude all of them.
        RefusalError: A lowering is impossible, or the model is a retrofit and `replace` is not set.
        OutputError: The result cannot be written.
    """
    options = Options(
        KappaPlan.of(kappa), lowering, target, include, exclude, opset, prove, demote_initializer_inputs, replace,
        hash_data, timestamp,
    )  # fmt: skip
    require_choice("external_data", external_data, get_args(ExternalMode))
    if isinstance(model, str | Path):
        return _rewrite_file(
            Path(model), options, output, DEFAULT_SUFFIX, external_data, force=force, dry_run=dry_run, diff=diff
        )
    if isinstance(model, onnx.ModelProto):
        done = retrofit(from_proto(model), options)
        return done.model, _with_diff(done.result, done) if diff else done.result
    from jr_onnx.rewriter import surgeon

    done = retrofit(from_proto(surgeon.to_model(model)), options)
    return surgeon.to_graph(done.model), _with_diff(done.result, done) if diff else done.result


@overload
def fuse(
    model: onnx.ModelProto, *, lowering: RequestedLowering = "custom", diff: bool = False
) -> tuple[onnx.ModelProto, RewriteResult]: ...


@overload
def fuse(
    model: str | Path,
    output: str | Path | None = None,
    *,
    lowering: RequestedLowering = "custom",
    force: bool = False,
    external_data: ExternalMode = "auto",
    dry_run: bool = False,
    diff: bool = False,
) -> tuple[Path, RewriteResult]: ...


def fuse(
    model: str | Path | onnx.ModelProto,
    output: str | Path | None = None,
    *,
    lowering: RequestedLowering = "custom",
    force: bool = False,
    external_data: ExternalMode = "auto",
    dry_run: bool = False,
    diff: bool = False,
) -> tuple[Path | onnx.ModelProto, RewriteResult]:
    """Make one operator of every jump that a model has itself, with its own thresholds, and change nothing else.

    Such are `z * (z > threshold)`, `relu(z) * (z > threshold)` and `where(z > threshold, z, 0)` in exported JumpReLU
    sparse autoencoders. The result computes the same: docs/fuse.md says what of NaN, infinities and signed zeros.

    Args:
        model: A path or a ModelProto; the input itself is not changed.
        output: For a path: where to write; by default `<name>.fused.onnx` beside the source.
        lowering: What to write: custom (`jr_onnx::JumpRelu` with a function body), where or thresholded.
        force: For a path: replace an existing output.
        external_data: For a path: how external data comes to another folder, as for `rewrite`.
        dry_run: For a path: write nothing.
        diff: Put a unified diff of the nodes into the result.

    Returns:
        The fused model, of the kind that came in (a path for a path), and what was done.

    Raises:
        ModelError: The input is not a usable model.
        NoSiteError: The model has no jump of its own.
        RefusalError: No jump can be fused, the lowering is impossible, or the model is a retrofit.
        OutputError: The result cannot be written.
    """
    plan = KappaPlan(own=True)
    if isinstance(model, onnx.ModelProto):
        return rewrite(model, plan, lowering=lowering, diff=diff)
    require_choice("external_data", external_data, get_args(ExternalMode))
    return _rewrite_file(
        Path(model), Options(plan, lowering), output, FUSED_SUFFIX, external_data, force=force, dry_run=dry_run,
        diff=diff,
    )  # fmt: skip


def _rewrite_file(
    model: Path,
    options: Options,
    output: str | Path | None,
    suffix: str,
    external_data: ExternalMode,
    *,
    force: bool,
    dry_run: bool,
    diff: bool,
) -> tuple[Path, RewriteResult]:
    """Rewrite a file; for the arguments see `rewrite`; `suffix` is how the output's name ends by default."""
    source = load(model)
    done = retrofit(source, options)
    path = output_path(source, output, force=force or dry_run, suffix=suffix)
    result = done.result if dry_run else _write(done, path, external_data, force=force)
    return path, _with_diff(result, done) if diff else result


def _with_diff(result: RewriteResult, done: Retrofit) -> RewriteResult:
    return dataclasses.replace(result, diff=text_diff(done.source.proto, done.model))


def _write(done: Retrofit, path: Path, external_data: ExternalMode, *, force: bool) -> RewriteResult:
    """Write a finished rewrite; external data first, the model last, so that a model never lacks its data.

    Raises:
        OutputError: Something is in the way or cannot be written.
    """
    how = "none"
    if done.source.folder is not None:
        how = place_external_data(done.record.external_data, done.source.folder, path, external_data, force=force)
    save(done.model, done.source.payloads, path)
    warnings = done.result.warnings
    if how == "hardlink":
        warnings = (
            *warnings,
            "the external data has several hard links now: ONNX Runtime reads it, onnx.load refuses it, here and at "
            "the source, as a possible attack",
        )
    return dataclasses.replace(done.result, output=str(path), external_data=how, warnings=warnings)


@overload
def restore(model: onnx.ModelProto, *, folder: Path | None = None) -> onnx.ModelProto: ...


@overload
def restore(model: str | Path, output: str | Path | None = None, *, force: bool = False) -> Path: ...


def restore(
    model: str | Path | onnx.ModelProto,
    output: str | Path | None = None,
    *,
    force: bool = False,
    folder: Path | None = None,
) -> Path | onnx.ModelProto:
    """Restore the original of a retrofit, bit for bit in everything but the provenance.

    Args:
        model: A path or a ModelProto; the input itself is not changed. An onnx-graphsurgeon Graph keeps no metadata, so
            that nothing can be restored from it.
        output: For a path: where to write; by default `<name>.restored.onnx` beside it.
        force: For a path: replace an existing output.
        folder: For a ModelProto: the folder that its external data is relative to.

    Returns:
        The written path for a path, a ModelProto for a ModelProto.

    Raises:
        ModelError: The model is not a retrofit, was optimised, or was changed so that a site is not where it was.
        RefusalError: The model's graph does not compute what its provenance says, so the result would not be the
            original.
        OutputError: The result cannot be written.
    """
    if isinstance(model, onnx.ModelProto):
        copy = copied(model)
        with readable("the model"):
            restore_in_place(copy, "the model", folder=folder)
        return copy
    if not isinstance(model, str | Path):
        raise ModelError(
            f"nothing can be restored from a {type(model).__name__}, expected a path or a ModelProto",
            hint="An onnx-graphsurgeon Graph loses the provenance; keep the Graph that was rewritten",
        )
    source = load(model)
    path = output_path(source, output, force=force, suffix=".restored.onnx")
    with readable(str(source.path)):
        record = restore_in_place(source.proto, str(source.path), source.payloads, source.folder)
    if source.folder is not None:
        place_external_data(record.external_data, source.folder, path, "auto", force=force)
    save(source.proto, source.payloads, path)
    return path


def output_path(source: ModelFile, output: str | Path | None, *, force: bool, suffix: str = DEFAULT_SUFFIX) -> Path:
    """Return where to write.

    Raises:
        OutputError: No file can be written to the output, is the source itself, or exists and `force` is not set.
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
