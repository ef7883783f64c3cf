"""`jr-onnx rewrite`: replace the ReLUs of a model with JumpReLU, and change nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import (
    KappaArguments,
    diff_option,
    dry_run_option,
    external_data_option,
    force_option,
    kappa_options,
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
from jr_onnx.cli.types import INTEGER

if TYPE_CHECKING:
    from jr_onnx.kappa import KappaPlan, RandomPer, RandomSource
    from jr_onnx.rewriter import RewriteResult

_ROWS_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Arguments(KappaArguments):
    """The arguments and options of `jr-onnx rewrite`."""

    model: Path
    random_per: RandomPer
    random_source: RandomSource | None
    kappa_input: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    lowering: Literal["auto", "where", "thresholded", "custom"]
    provider: Literal["cpu", "cuda"] | None
    opset: int | None
    demote_initializer_inputs: bool
    replace: bool
    external_data: Literal["auto", "copy", "hardlink", "reference"]
    hash_data: bool
    timestamp: bool
    dry_run: bool
    diff: bool
    force: bool
    output: Path | None
    as_json: bool

    @property
    def plan(self) -> KappaPlan:
        """The plan.

        Raises:
            KappaError: No option gives a kappa, they contradict each other, or the map cannot be read.
        """
        from jr_onnx.errors import KappaError
        from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan, RandomKappa

        if self.random is None:
            if self.random_source or self.random_per != "network":
                raise KappaError("--random-source and --random-per go with --random LOW HIGH, which is missing")
            return KappaPlan(self.kappa, self.by_site, None, self.kappa_input)
        source: RandomSource = self.random_source or ("op" if self.random_per == "site" else "input")
        name = self.kappa_input
        if source == "input":
            name = name or DEFAULT_INPUT_NAME
        elif name is not None:
            raise KappaError(f"--kappa-input goes with --random-source input, found {source!r}")
        return KappaPlan(self.kappa, self.by_site, RandomKappa(*self.random, self.random_per, source), name)


@cli_command(
    "rewrite",
    Arguments,
    examples=(
        "jr-onnx rewrite model.onnx --kappa 0.06",
        "jr-onnx rewrite model.onnx --kappa 0.06 --include relu_3 --dry-run --diff",
        "jr-onnx rewrite model.onnx --random 0.036 0.06 -o random.onnx",
    ),
)
@model_argument
@kappa_options
@option(
    "--random-per",
    type=click.Choice(["network", "site"]),
    default="network",
    help="One draw for the whole network, or one for every site.",
)
@option(
    "--random-source",
    type=click.Choice(["input", "op", "graph"]),
    show_default="input for --random-per network, op for site",
    help="What draws kappa: jr_onnx.InferenceSession, into a graph input; the custom op; or RandomUniform in the "
    "graph, which is predictable.",
)
@option("--kappa-input", metavar="NAME", help="Make kappa an optional scalar graph input whose default is --kappa.")
@option("--include", multiple=True, metavar="REGEX", help="Rewrite only these sites: an id, or a pattern of ids.")
@option("--exclude", multiple=True, metavar="REGEX", help="Do not rewrite these sites: an id, or a pattern.")
@option(
    "--lowering",
    type=click.Choice(["auto", "where", "thresholded", "custom"]),
    default="auto",
    help="The operators that compute J: Sub/Greater/Where, ThresholdedRelu, or the custom op with a function body.",
)
@option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    show_default="any",
    help="The execution provider to choose the lowering for.",
)
@renamed_option(
    "--target",
    "--provider",
    type=click.Choice(["portable", "cpu", "cuda"]),
    convert=lambda target: None if target == "portable" else target,
)
@option(
    "--opset",
    type=INTEGER,
    help="Convert the model to this opset first, list what that changed, and prove that it computes the same.",
)
@option(
    "--demote-initializer-inputs",
    is_flag=True,
    help="Remove initializers from the graph inputs (IR 3 lists them there) if the IR version must be raised.",
)
@option("--replace", is_flag=True, help="Give the sites of MODEL, a retrofit, another kappa.")
@external_data_option
@option("--hash-data", is_flag=True, help="Also record the SHA-256 of external data in the provenance.")
@option("--timestamp", is_flag=True, help="Record the time in the provenance; no two files are then the same.")
@dry_run_option
@diff_option
@output_option("The retrofit to write.", default="MODEL.jr.onnx")
@force_option
@json_option
def command(given: Arguments) -> None:
    """Replace the ReLUs of MODEL with JumpReLU, and change nothing else.

    J(z) = z if z > kappa else 0. Every rewrite is undone on a copy and compared with MODEL before anything is written.
    """
    from jr_onnx.rewriter import rewrite
    from jr_onnx.verifier import prove_conversion

    plan = given.plan
    path, result = rewrite(
        given.model,
        plan,
        output=given.output,
        force=given.force,
        external_data=given.external_data,
        dry_run=given.dry_run,
        diff=given.diff,
        lowering=given.lowering,
        target=given.provider or "portable",
        include=given.include,
        exclude=given.exclude,
        opset=given.opset,
        prove=prove_conversion,
        demote_initializer_inputs=given.demote_initializer_inputs,
        replace=given.replace,
        hash_data=given.hash_data,
        timestamp=given.timestamp,
    )
    print_rewrite(result, lambda done: _show(done, plan), as_json=given.as_json)
    if result.output is not None:
        print_message(next_step("verify", path, *(() if given.replace else (given.model,))))


def _show(result: RewriteResult, plan: KappaPlan) -> None:
    from jr_onnx.provenance import form_label

    hidden = len(result.sites) - _ROWS_SHOWN + 1
    rows = [
        (site.id, form_label(site.form, site.cap), site.dtype, plan.label(site.kappa), site.lowering)
        for site in (result.sites if hidden < 2 else result.sites[: _ROWS_SHOWN - 1])
    ]
    if hidden > 1:
        rows = [*rows, (f"... and {hidden} more (--json lists all)", "", "", "", "")]
    print_table(("site", "form", "dtype", "kappa", "lowering"), rows)
    lost = [item for item in result.refusals if item.kind == "refused"]
    refused = f", {len(lost)} ReLUs cannot be rewritten (jr-onnx inspect says why)" if lost else ""
    aside = sum(item.kind in ("gate", "clamp") for item in result.refusals)
    if aside:
        refused += f", {counted(aside, 'gate or clamp', 'gates or clamps')} left alone (--include takes them)"
    skipped = f", {len(result.skipped)} left as they are" if result.skipped else ""
    where = f" -> {result.output}" if result.output else " (dry run, nothing written)"
    print_lines(f"{counted(len(result.sites), 'site')} rewritten{skipped}{refused}{where}")
