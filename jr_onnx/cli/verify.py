"""`jr-onnx verify`: prove that a retrofit computes what it should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import (
    fallback_option,
    logits_option,
    model_argument,
    preprocess_option,
    provider_option,
    seed_option,
    shape_option,
    value_option,
)
from jr_onnx.cli.output import counted, json_option, print_json, print_json_of, print_lines, print_message, print_table
from jr_onnx.cli.types import INTEGER, PATH

if TYPE_CHECKING:
    from jr_onnx.verifier import InputOptions, VerifyReport
    from jr_onnx.verifier.evaluators.device import Device
    from jr_onnx.verifier.torch.compare import TorchReport

_HEADLINE = {
    "verified": "verified",
    "failed": "NOT VERIFIED",
    "model not run": "SITES PROVED, MODEL NOT RUN",
}
_HINT = {
    True: "A file that does not load proves nothing and cannot be deployed: repair the original, and rewrite it again",
    False: "Verify it where ONNX Runtime has what the model needs",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx verify`."""

    model: Path
    original: Path | None
    kappa: float | None
    samples: int
    reference_samples: int
    seed: int
    batch: int
    shape: Mapping[str, tuple[int, ...]]
    values: Mapping[str, float]
    data: str | None
    preprocess: str
    torch: str | None
    weights: Path | None
    logits: str
    provider: Literal["cpu", "cuda"]
    allow_fallback: bool
    as_json: bool


@cli_command(
    "verify",
    Arguments,
    examples=(
        "jr-onnx verify model.jr.onnx model.onnx --data digits",
        "jr-onnx verify model.onnx --kappa 0.06",
    ),
)
@model_argument
@click.argument("original", type=PATH, required=False)
@option(
    "--kappa", type=float, help="MODEL is not a retrofit: rewrite it in memory with every lowering, and verify those."
)
@option("--samples", type=INTEGER, default=8, help="Inputs that the whole model is run on.")
@option(
    "--reference-samples",
    type=INTEGER,
    default=1,
    help="How many of them ONNX's reference evaluator, which is slow, computes too.",
)
@seed_option
@option("--batch", type=INTEGER, default=1, help="Size used for dynamic batch axes.")
@shape_option
@value_option
@option(
    "--data",
    metavar="SOURCE",
    show_default="random inputs",
    help="Real inputs: digits, mnist:DIR, cifar10:DIR, npz:FILE or folder:DIR (test split).",
)
@preprocess_option
@option(
    "--torch",
    metavar="MODULE:FACTORY",
    help="Also compare with this torch network, which MODEL was exported from; its ReLUs become JumpReLUs.",
)
@option("--weights", type=PATH, help="State dict for --torch, read with weights_only.")
@logits_option
@provider_option(
    "cpu",
    "cuda",
    what="Where ONNX Runtime computes; on CUDA, TF32 is off where equality is demanded, and on elsewhere.",
)
@fallback_option
@json_option
def command(given: Arguments) -> None:
    """Prove that MODEL, a retrofit, computes what it should.

    Every site is tried with the jump, its neighbouring floats and all special values; the whole model is compared with
    the original at kappa 0, with every other lowering, and with a reference run. Give ORIGINAL to also prove that
    nothing else changed; without it, the original is restored from the provenance. Exits with code 1 if anything
    disagrees, with 8 if the original itself does not run on the inputs, and with 9 if the sites are proved but the
    model was not run, because ONNX Runtime loads neither it nor the original.
    """
    from jr_onnx.errors import InputError, ModelNotRunError, VerificationError
    from jr_onnx.verifier import InputOptions, verify

    for word, value in (("--weights", given.weights), ("--logits", given.logits)):
        if value and given.torch is None:
            raise InputError(f"{word} goes with --torch MODULE:FACTORY, which is missing")
    inputs = InputOptions(given.shape, given.values, given.batch, given.data, given.preprocess, given.seed)
    provider = _provider(given)
    report = verify(
        given.model, given.original, given.kappa, samples=given.samples,
        reference_samples=given.reference_samples, input_options=inputs, provider=provider,
    )  # fmt: skip
    network = _verify_torch(given, given.torch, inputs, provider) if given.torch else None
    if given.as_json:
        if network is None:
            print_json(report)
        else:
            print_json_of({"verify": report, "torch": network})
    else:
        _show(report)
        if network is not None:
            _show_torch(network)
    if report.conclusion == "model not run":
        raise ModelNotRunError(
            f"{given.model} is not verified: the model was not run: {report.reason}", hint=_HINT[report.broken]
        )
    if not report:
        for failure in report.failures[1:]:
            print_message(str(failure))
        first = str(report.failures[0]) if report.failures else "nothing could be compared"
        raise VerificationError(f"{given.model} failed verification: {first}")
    if network is not None and not network.passed:
        worst = max(network.comparisons, key=lambda item: item.worst_ratio)
        raise VerificationError(f"{given.model} and the torch network disagree on {worst}")


def _provider(given: Arguments) -> Device:
    """Return where to verify: on the CPU, with a warning, if the provider does not work and that is allowed."""
    from jr_onnx.runtime.providers import full_name, usable_providers

    if not given.allow_fallback:
        return given.provider  # `verify` refuses what does not work
    name = full_name(given.provider)
    kept = usable_providers([name], lambda words: print_message(f"warning: {words}, on the CPU"))
    return given.provider if name in kept else "cpu"


def _verify_torch(given: Arguments, network: str, inputs: InputOptions, provider: Device) -> TorchReport:
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.modelfile import load
    from jr_onnx.verifier.inputs import batch_of_images
    from jr_onnx.verifier.torch.compare import verify_torch

    images = batch_of_images(load(given.model).proto, inputs)
    return verify_torch(
        network,
        given.weights,
        given.model,
        images,
        kappa=given.kappa,
        output=given.logits or None,
        seed=inputs.seed,
        raise_on_failure=False,
        provider=provider,
        allow_fallback=given.allow_fallback,
    )


def _headline(report: VerifyReport) -> str:
    where = " in ONNX's evaluator, not on ONNX Runtime" if report and report.not_loaded else ""
    return _HEADLINE[report.conclusion] + where


def _show(report: VerifyReport) -> None:
    rows = [
        (
            check.what,
            str(check.samples),
            f"{check.max_difference:.3g}",
            "equal" if check.bound is None else f"{check.bound:.2g}",
            str(check.flips),
            check.verdict if check.verdict != "failed" else "FAILED",
            f"{check.compared}: {check.detail}" if check.detail else check.compared,
        )
        for check in report.checks
    ]
    columns = ("check", "samples", "max difference", "accepted", "flips", "verdict", "compared")
    print_table(columns, rows)
    for line in (*(f"impossible here: {text}" for text in report.refused_lowerings), *report.notes):
        print_lines(line)
    passed = sum(check.verdict == "passed" for check in report.checks)
    failed = sum(check.verdict == "failed" for check in report.checks)
    print_lines(
        f"{_headline(report)}: {counted(report.sites, 'site')}, kappa {report.kappa}; "
        f"{counted(passed, 'check')} passed, {failed} failed, {len(report.not_run)} not run, "
        f"{counted(report.flips, 'flip')}; original {report.original}; inputs {report.inputs}"
    )


def _show_torch(report: TorchReport) -> None:
    rows = [
        (
            item.what,
            str(item.samples),
            f"{item.max_abs_error:.3g}",
            f"{item.bound:.2g}",
            str(item.near_jump),
            "passed" if item.passed else "FAILED",
        )
        for item in report.comparisons
    ]
    click.echo()
    print_table(("torch with", "samples", "max difference", "accepted", "near the jump", "verdict"), rows)
    for note in report.notes:
        print_lines(note)
