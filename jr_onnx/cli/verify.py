"""`jr-onnx verify`: prove that a retrofit computes what it should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import (
    fallback_option,
    logits_option,
    model_argument,
    preprocess_option,
    seed_option,
    shape_option,
    value_option,
)
from jr_onnx.cli.output import counted, json_option, print_json, print_json_of, print_table, say, tell

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
    True: "A file that does not load proves nothing and cannot be deployed: mend the original, and rewrite it again",
    False: "Verify it where ONNX Runtime has what the model needs",
}


@click.command("verify")
@model_argument
@click.argument("original", type=click.Path(path_type=Path), required=False)
@click.option("--kappa", type=float, help="MODEL is no retrofit: rewrite it in memory with every lowering and verify.")
@click.option("--samples", type=int, default=8, show_default=True, help="How many inputs for the whole model.")
@click.option(
    "--reference-samples",
    type=int,
    default=1,
    show_default=True,
    help="How many of them ONNX's reference evaluator computes too; it is slow.",
)
@seed_option
@click.option("--batch", type=int, default=1, show_default=True, help="Size of free batch axes.")
@shape_option
@value_option
@click.option(
    "--data", metavar="SPEC", help="Real inputs: digits, mnist:DIR, cifar10:DIR, npz:FILE or folder:DIR (test split)."
)
@preprocess_option
@click.option(
    "--torch",
    "network",
    metavar="MODULE:FACTORY",
    help="Compare with this torch network too, the one MODEL was exported from; its ReLUs become JumpReLU.",
)
@logits_option
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where ONNX Runtime computes: TF32 off where equality is demanded, on within bounds.",
)
@fallback_option
@click.option("--weights", type=click.Path(path_type=Path), help="State dict for --torch, read with weights_only.")
@json_option
def command(
    model: Path,
    original: Path | None,
    kappa: float | None,
    samples: int,
    reference_samples: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Prove that MODEL, a retrofit, computes what it should.

    Every site is tried with the jump, its neighbouring floats and all special values; the whole model is compared with
    the original at kappa 0, with every other lowering, and with a reference run. Give ORIGINAL to prove as well that
    nothing else changed; without it the original is restored from the retrofit's provenance. Leaves with exit code 1
    where anything disagrees, 8 where the original itself does not run on the inputs, and 9 where the sites are proved
    but the model was not run, because ONNX Runtime loads neither it nor the original.
    """
    from jr_onnx.cli.named_values import parse_shapes, parse_values
    from jr_onnx.errors import InputError, ModelNotRunError, VerificationError
    from jr_onnx.verifier import InputOptions, verify

    if given["weights"] is not None and given["network"] is None:
        raise InputError("--weights goes with --torch MODULE:FACTORY, which is missing")
    if given["logits"] and given["network"] is None:
        raise InputError("--logits goes with --torch MODULE:FACTORY, which is missing")
    shapes, values = parse_shapes(given["shape"]), parse_values(given["values"])
    input_options = InputOptions(shapes, values, given["batch"], given["data"], given["preprocess"], given["seed"])
    report = verify(
        model, original, kappa, samples=samples, reference_samples=reference_samples, input_options=input_options,
        provider=_provider(given["provider"], allow_fallback=given["allow_fallback"]),
    )  # fmt: skip
    network = _verify_torch(model, kappa, input_options, given) if given["network"] else None
    if as_json:
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
            f"{model} is not verified: the model was not run: {report.reason}", hint=_HINT[report.broken]
        )
    if not report:
        for failure in report.failures[1:]:
            say(str(failure))
        first = str(report.failures[0]) if report.failures else "nothing could be compared"
        raise VerificationError(f"{model} failed verification: {first}")
    if network is not None and not network.passed:
        worst = max(network.comparisons, key=lambda item: item.worst_ratio)
        raise VerificationError(f"{model} and the torch network disagree on {worst}")


def _provider(name: Device, *, allow_fallback: bool) -> Device:
    """Return where to verify: on the CPU, said loudly, where the provider does not work and that is allowed."""
    from jr_onnx.runtime.providers import full_name, usable_providers

    if not allow_fallback:
        return name  # `verify` refuses what does not work
    kept = usable_providers([full_name(name)], lambda words: say(f"warning: {words}, on the CPU"))
    return name if full_name(name) in kept else "cpu"


def _verify_torch(model: Path, kappa: float | None, input_options: InputOptions, given: dict[str, Any]) -> TorchReport:
    from jr_onnx.errors import require

    require("torch", "attack")
    from jr_onnx.modelfile import load
    from jr_onnx.verifier.inputs import batch_of_images
    from jr_onnx.verifier.torch.compare import verify_torch

    images = batch_of_images(load(model).proto, input_options)
    return verify_torch(
        given["network"],
        given["weights"],
        model,
        images,
        kappa=kappa,
        output=given["logits"] or None,
        seed=input_options.seed,
        raise_on_failure=False,
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
        tell(line)
    passed = sum(check.verdict == "passed" for check in report.checks)
    failed = sum(check.verdict == "failed" for check in report.checks)
    tell(
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
        tell(note)
