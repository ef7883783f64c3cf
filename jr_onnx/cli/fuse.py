"""`jr-onnx fuse`: make one operator of every jump that a model has itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import (
    diff_option,
    dry_run_option,
    external_data_option,
    force_option,
    model_argument,
    output_option,
)
from jr_onnx.cli.output import (
    counted,
    json_option,
    next_step,
    print_lines,
    print_message,
    print_rewrite,
    print_table,
)

if TYPE_CHECKING:
    from jr_onnx.rewriter import RewriteResult


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx fuse`."""

    model: Path
    lowering: Literal["custom", "where", "thresholded"]
    external_data: Literal["auto", "copy", "hardlink", "reference"]
    dry_run: bool
    diff: bool
    force: bool
    output: Path | None
    as_json: bool


@cli_command(
    "fuse",
    Arguments,
    examples=("jr-onnx fuse sae.onnx -o fused.onnx", "jr-onnx fuse sae.onnx --dry-run --diff"),
)
@model_argument
@option(
    "--lowering",
    type=click.Choice(["custom", "where", "thresholded"]),
    default="custom",
    help="The operators that compute J: the custom op with a function body, Sub/Greater/Where, or ThresholdedRelu.",
)
@external_data_option
@dry_run_option
@diff_option
@output_option("The fused model to write.", default="MODEL.fused.onnx")
@force_option
@json_option
def command(given: Arguments) -> None:
    """Make one operator of every jump that MODEL has itself, with its own thresholds.

    Exported JumpReLU sparse autoencoders multiply z or relu(z) by z > threshold, or select with it. What is fused
    computes the same; jr-onnx verify proves it and jr-onnx restore undoes it.
    """
    from jr_onnx.rewriter import fuse

    path, result = fuse(
        given.model,
        given.output,
        lowering=given.lowering,
        force=given.force,
        external_data=given.external_data,
        dry_run=given.dry_run,
        diff=given.diff,
    )
    print_rewrite(result, _show, as_json=given.as_json)
    if result.output is not None:
        print_message(next_step("verify", path, given.model))


def _show(result: RewriteResult) -> None:
    from jr_onnx.semantics import kappa_label

    rows = [(site.id, site.form, site.dtype, kappa_label(site.kappa), site.lowering) for site in result.sites]
    print_table(("jump", "form", "dtype", "kappa", "lowering"), rows)
    where = f" -> {result.output}" if result.output else " (dry run, nothing written)"
    left = f", {counted(len(result.left), 'jump')} left alone" if result.left else ""
    print_lines(f"{counted(len(result.sites), 'jump')} fused{left}{where}")
    for jump in result.left:
        print_lines(f"left alone: {jump.id}: {jump.problem}")
