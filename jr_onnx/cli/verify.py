"""`jr-onnx verify`: prove that a retrofit computes what it should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.output import json_option, print_json, print_table, say

if TYPE_CHECKING:
    from jr_onnx.verify import VerifyReport


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
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
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@click.option("--batch", type=int, default=1, show_default=True, help="Size of free batch axes.")
@click.option("--shape", multiple=True, metavar="NAME=1,3,224,224", help="Shape of an input. Repeatable.")
@click.option("--value", multiple=True, metavar="NAME=NUMBER", help="Fill an input with a number. Repeatable.")
@click.option(
    "--data", metavar="SPEC", help="Real inputs: digits, mnist:DIR, cifar10:DIR, npz:FILE or folder:DIR (test split)."
)
@click.option(
    "--preprocessing",
    default="none",
    show_default=True,
    help="For --data: mnist, cifar10, imagenet, or mean=...;std=...;layout=NHWC;range=0,255",
)
@json_option
def command(
    model: Path,
    original: Path | None,
    kappa: float | None,
    samples: int,
    reference_samples: int,
    seed: int,
    batch: int,
    shape: tuple[str, ...],
    value: tuple[str, ...],
    data: str | None,
    preprocessing: str,
    as_json: bool,
) -> None:
    """Prove that MODEL, a retrofit, computes what it should.

    Every site is tried with the jump, its neighbouring floats and all special values; the whole model is compared with
    the original at kappa 0, with every other lowering, and with a reference run. Give ORIGINAL to prove as well that
    nothing else changed; without it the original is restored from the retrofit's provenance. Leaves with exit code 1
    where anything disagrees, and 8 where the original itself does not run on the inputs.
    """
    from jr_onnx.errors import VerificationError
    from jr_onnx.verify import InputWish, verify
    from jr_onnx.verify.options import parse_shapes, parse_values

    wish = InputWish(parse_shapes(shape), parse_values(value), batch, data, preprocessing, seed)
    report = verify(
        model, kappa, original=original, samples=samples, reference_samples=reference_samples, wish=wish
    )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not report:
        for failure in report.failures[1:]:
            say(str(failure))
        first = str(report.failures[0]) if report.failures else "nothing could be compared"
        raise VerificationError(f"{model} failed verification: {first}")


def _show(report: VerifyReport) -> None:
    rows = [
        (
            check.what,
            check.compared,
            str(check.samples),
            f"{check.max_difference:.3g}",
            "equal" if check.bound is None else f"{check.bound:.2g}",
            str(check.flips),
            check.verdict if check.verdict != "failed" else "FAILED",
            check.detail,
        )
        for check in report.checks
    ]
    columns = ("check", "compared", "samples", "max difference", "accepted", "flips", "verdict", "detail")
    print_table(columns, rows)
    for line in (*(f"impossible here: {text}" for text in report.refused_lowerings), *report.notes):
        click.echo(line)
    passed = sum(check.verdict == "passed" for check in report.checks)
    failed = sum(check.verdict == "failed" for check in report.checks)
    click.echo(
        f"{'verified' if report else 'NOT VERIFIED'}: {report.sites} sites, kappa {report.kappa}; "
        f"{passed} checks passed, {failed} failed, {len(report.not_run)} not run, {report.flips} flips; "
        f"original {report.original}; inputs {report.inputs}"
    )
