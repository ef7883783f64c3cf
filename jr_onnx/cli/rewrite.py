"""`jr-onnx rewrite`: replace the ReLUs of a model by JumpReLU, and change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import force_option, model_argument
from jr_onnx.cli.output import counted, json_option, next_step, print_json, print_table, say, tell

if TYPE_CHECKING:
    from jr_onnx.kappa import KappaPlan, RandomSource
    from jr_onnx.rewriter import RewriteResult

_ROWS_SHOWN = 12


@click.command("rewrite")
@model_argument
@click.option("--kappa", type=float, help="The jump, for every site: z passes where z > kappa. 0 is ReLU.")
@click.option(
    "--kappa-map",
    type=click.Path(path_type=Path),
    help="JSON or YAML file: site id or regular expression -> kappa. Sites it does not name get --kappa, or stay ReLU.",
)
@click.option(
    "--random",
    "random_range",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Draw kappa from U[LOW, HIGH] for every forward pass (paper, appendix C).",
)
@click.option(
    "--random-per",
    type=click.Choice(["network", "site"]),
    default="network",
    show_default=True,
    help="One draw for the whole network, or one for every site.",
)
@click.option(
    "--random-source",
    type=click.Choice(["input", "op", "graph"]),
    help="Who draws: jr_onnx.InferenceSession into a graph input, the custom op, or RandomUniform in the graph "
    "(predictable).  [default: input per network, op per site]",
)
@click.option(
    "--kappa-input", metavar="NAME", help="Make kappa an optional scalar graph input; --kappa is its default."
)
@click.option("--include", multiple=True, metavar="REGEX", help="Rewrite only sites of this id, or whose id matches.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Leave sites of this id, or whose id matches.")
@click.option(
    "--lowering",
    type=click.Choice(["auto", "where", "thresholded", "custom"]),
    default="auto",
    show_default=True,
    help="How J is written: Sub/Greater/Where, ThresholdedRelu, or the jr_onnx custom op with a function body.",
)
@click.option(
    "--target",
    type=click.Choice(["portable", "cpu", "cuda"]),
    default="portable",
    show_default=True,
    help="Where the model will run; auto chooses the lowering for it.",
)
@click.option(
    "--opset",
    type=int,
    metavar="N",
    help="Convert the model to this opset first, list what that changed, and prove that it computes the same.",
)
@click.option(
    "--demote-initializer-inputs",
    is_flag=True,
    help="Take initializers off the graph inputs (IR 3 lists them there), where the IR version must be raised.",
)
@click.option("--replace", is_flag=True, help="MODEL is a retrofit: give its sites the new kappa.")
@click.option(
    "--external-data",
    type=click.Choice(["auto", "copy", "hardlink", "reference"]),
    default="auto",
    show_default=True,
    help="How external data comes to another folder; auto shares blocks where the file system can, else copies.",
)
@click.option("--hash-data", is_flag=True, help="Record the SHA-256 of external data in the provenance too.")
@click.option("--timestamp", is_flag=True, help="Record the time in the provenance (the bytes then differ each time).")
@click.option("--dry-run", is_flag=True, help="Do everything but writing.")
@click.option("--diff", is_flag=True, help="Print a unified diff of the nodes.")
@force_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.jr.onnx beside it]"
)
@json_option
def command(model: Path, output: Path | None, as_json: bool, dry_run: bool, diff: bool, **given: Any) -> None:
    """Replace the ReLUs of MODEL by JumpReLU, and change nothing else.

    J(z) = z if z > kappa else 0. The simplest use is: jr-onnx rewrite model.onnx --kappa 0.06
    """
    from jr_onnx.rewriter import rewrite
    from jr_onnx.verifier import prove_conversion

    plan = _plan(given)
    path, result = rewrite(
        model,
        plan,
        output=output,
        force=given["force"],
        external_data=given["external_data"],
        dry_run=dry_run,
        diff=diff,
        lowering=given["lowering"],
        target=given["target"],
        include=given["include"],
        exclude=given["exclude"],
        opset=given["opset"],
        prove=prove_conversion,
        demote_initializer_inputs=given["demote_initializer_inputs"],
        replace=given["replace"],
        hash_data=given["hash_data"],
        timestamp=given["timestamp"],
    )
    if result.diff is not None:
        tell(result.diff)
    if as_json:
        print_json(result)
    elif not diff:
        _show(result, plan)
    for warning in result.warnings:
        say(f"warning: {warning}")
    if result.output is not None:
        say(next_step("verify", path, *(() if given["replace"] else (model,))))


def _plan(given: dict[str, Any]) -> KappaPlan:
    from jr_onnx.errors import KappaError
    from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan, RandomKappa, read_kappa_map

    by_site = read_kappa_map(given["kappa_map"]) if given["kappa_map"] is not None else {}
    random = None
    name = given["kappa_input"]
    if given["random_range"]:
        low, high = given["random_range"]
        source: RandomSource = given["random_source"] or ("op" if given["random_per"] == "site" else "input")
        random = RandomKappa(low, high, given["random_per"], source)
        if source == "input":
            name = name or DEFAULT_INPUT_NAME
        elif name is not None:
            raise KappaError(f"--kappa-input goes with --random-source input, found {source!r}")
    elif given["random_source"] or given["random_per"] != "network":
        raise KappaError("--random-source and --random-per go with --random LOW HIGH, which is missing")
    return KappaPlan(given["kappa"], tuple(by_site.items()), random, name)


def _show(result: RewriteResult, plan: KappaPlan) -> None:
    hidden = len(result.sites) - _ROWS_SHOWN + 1
    rows = [
        (
            site.id,
            site.form if site.cap is None else f"{site.form} <= {site.cap:g}",
            site.dtype,
            plan.label(site.kappa),
            site.lowering,
        )
        for site in (result.sites if hidden < 2 else result.sites[: _ROWS_SHOWN - 1])
    ]
    if hidden > 1:
        rows = [*rows, (f"... and {hidden} more (--json lists all)", "", "", "", "")]
    print_table(("site", "form", "dtype", "kappa", "lowering"), rows)
    lost = [item for item in result.refusals if item.kind == "refused"]
    refused = f", {len(lost)} ReLUs cannot be rewritten (jr-onnx inspect says why)" if lost else ""
    aside = len(result.refusals) - len(lost)
    if aside:
        refused += f", {counted(aside, 'gate or clamp', 'gates or clamps')} left alone (--include takes them)"
    skipped = f", {len(result.skipped)} left as they are" if result.skipped else ""
    where = f" -> {result.output}" if result.output else " (dry run, nothing written)"
    tell(f"{counted(len(result.sites), 'site')} rewritten{skipped}{refused}{where}")
    for change in result.changes:
        tell(f"also changed: {change}")
    if result.proof is not None:
        tell(f"the conversion is {result.proof}")
    if result.external_data != "none":
        tell(f"external data: {result.external_data}")
    if result.checker_problem is not None:
        tell(f"onnx.checker complains of the source and the result alike: {result.checker_problem}")
