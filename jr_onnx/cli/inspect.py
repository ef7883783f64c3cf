"""`jr-onnx inspect`: list every ReLU of a model, and the kappas and lowerings of a retrofit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.command import cli_command
from jr_onnx.cli.options import model_argument
from jr_onnx.cli.output import counted, json_option, next_step, print_json_object, print_message, print_table

if TYPE_CHECKING:
    from jr_onnx.rewriter import OwnJump, SiteTable
    from jr_onnx.rewriter.inspection import InspectedRetrofit


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx inspect`."""

    model: Path
    as_json: bool


@cli_command("inspect", Arguments, examples=("jr-onnx inspect model.onnx", "jr-onnx inspect model.jr.onnx --json"))
@model_argument
@json_option
def command(given: Arguments) -> int:
    """List every ReLU of MODEL, and every jump that it has itself: what can be rewritten, what cannot and why.

    Sites are found in the main graph, in If, Loop and Scan bodies and in model-local functions. For a retrofit, its
    sites are listed with their kappas and lowerings. Exits with code 3 if the model has no site and no
    jump, and with code 1 if the graph of a retrofit contradicts its provenance.
    """
    from jr_onnx.modelfile import load
    from jr_onnx.provenance import is_hardened
    from jr_onnx.rewriter.inspection import inspect

    file = load(given.model)
    table, retrofit = inspect(file)
    if given.as_json:
        print_json_object({**table.to_json(), **({"retrofit": retrofit.to_json()} if retrofit is not None else {})})
    else:
        _show(table, retrofit)
        if is_hardened(file.proto):
            print_message("its weights were trained by jr-onnx harden, and restore cannot undo that")
        if any(not jump.problem for jump in table.jumps):
            print_message(next_step("fuse", given.model))
    if retrofit is not None:
        return 1 if retrofit.mismatches else 0
    return 0 if table.sites or table.jumps else 3


def _show(table: SiteTable, retrofit: InspectedRetrofit | None) -> None:
    if retrofit is not None:
        _show_retrofit(retrofit)
    if table.sites:
        print_table(
            ("site", "form", "operator", "dtype", "cap", "feeds"),
            [
                (site.id, site.form, site.op_type, site.dtype, _cap(site.cap), ", ".join(site.feeds))
                for site in table.sites
            ],
        )
    if table.jumps:
        if table.sites or retrofit is not None:
            click.echo()
        print_table(
            ("jump of the model", "form", "dtype", "thresholds", "feeds"),
            [(jump.id, jump.form, jump.dtype, _thresholds(jump), ", ".join(jump.feeds)) for jump in table.jumps],
        )
    refused = [item for item in table.refusals if item.kind == "refused"]
    aside = [item for item in table.refusals if item.kind != "refused"]
    if aside:
        click.echo()
        rows = [(item.id, item.op_type, item.kind, item.reason) for item in aside]
        print_table(("left alone unless --include names it", "operator", "role", "why"), rows)
    for title, rows_of in (("cannot be rewritten", refused), ("not a ReLU", table.others)):
        if rows_of:
            click.echo()
            print_table((title, "operator", "why"), [(item.id, item.op_type, item.reason) for item in rows_of])
    bounded = sum(item.kind != "jump" for item in aside)
    left = f", {counted(bounded, 'gate or clamp', 'gates or clamps')} left alone" if bounded else ""
    rest = f"{len(refused)} cannot be rewritten{left}, {len(table.others)} are not ReLUs"
    jumps = f", {counted(len(table.jumps), 'jump')} of its own" if table.jumps else ""
    counts = f"{counted(len(table.sites), 'site')}, {rest}{jumps}"
    if retrofit is None:
        print_message(counts)
    elif table.sites or table.refusals or table.others or table.jumps:
        print_message(f"not retrofitted: {counts}")


def _show_retrofit(retrofit: InspectedRetrofit) -> None:
    from jr_onnx.provenance import form_label

    rows = [
        (site.id, form_label(site.form, site.cap), site.dtype, site.kappa_label, site.lowering)
        for site in retrofit.sites
    ]
    print_table(("retrofitted site", "form", "dtype", "kappa", "lowering"), rows)
    what = f"{counted(len(rows), 'site')} retrofitted from {retrofit.source or 'a model in memory'}"
    if retrofit.draws:
        what += f"; {retrofit.draws}"
    if retrofit.mismatches:
        click.echo()
        print_table(
            ("site", "the graph is not what the provenance says"),
            [(item.site, item.message) for item in retrofit.mismatches],
        )
        print_message(f"{what}; the table shows what the provenance says, but the graph does something else")
    elif retrofit.optimised:
        print_message(
            f"{what}; optimised for one host by jr-onnx optimize, which fused the sites with their neighbours: "
            "nothing can be restored from it, only from the retrofit that it was made from"
        )
    else:
        print_message(f"{what}; jr-onnx restore undoes it")


def _thresholds(jump: OwnJump) -> str:
    if jump.low is None or jump.high is None:
        return f"cannot be fused: {jump.problem}"
    if jump.low == jump.high:
        return f"{jump.low:.6g}"
    return f"{jump.low:.6g} to {jump.high:.6g} ({jump.thresholds} along axis {jump.axis})"


def _cap(cap: float | None) -> str:
    return "" if cap is None else f"{cap:g}"
