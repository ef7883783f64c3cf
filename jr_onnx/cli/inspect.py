"""`jr-onnx inspect`: list every ReLU of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.options import model_argument
from jr_onnx.cli.output import counted, json_option, print_json, print_table, say

if TYPE_CHECKING:
    from jr_onnx.provenance import Provenance
    from jr_onnx.rewrite import SiteTable


@click.command("inspect")
@model_argument
@json_option
def command(model: Path, as_json: bool) -> int:
    """List every ReLU of MODEL: what can be rewritten, what cannot and why.

    Sites are found in the main graph, in If, Loop and Scan bodies and in model-local functions. Leaves with exit code 3
    where there is none.
    """
    from jr_onnx import provenance
    from jr_onnx.modelfile import load
    from jr_onnx.rewrite import find_sites

    proto = load(model).proto
    table = find_sites(proto)
    record = provenance.read(proto)
    if as_json:
        print_json(table)
    else:
        _show(table, record)
    return 0 if table.sites or record is not None else 3


def _show(table: SiteTable, record: Provenance | None) -> None:
    if record is not None:
        rows = [(site.id, site.form, site.dtype, f"{site.kappa:g}", site.lowering) for site in record.sites]
        print_table(("retrofitted site", "form", "dtype", "kappa", "lowering"), rows)
        say(
            f"{counted(len(rows), 'site')} retrofitted from {record.source_name or 'a model in memory'}; "
            "jr-onnx restore undoes it"
        )
    if table.sites:
        print_table(
            ("site", "form", "operator", "dtype", "cap", "feeds"),
            [
                (site.id, site.form, site.op_type, site.dtype, _cap(site.cap), ", ".join(site.feeds))
                for site in table.sites
            ],
        )
    for title, rows_of in (("cannot be rewritten", table.refusals), ("no site", table.others)):
        if rows_of:
            click.echo()
            print_table((title, "operator", "why"), [(item.id, item.op_type, item.reason) for item in rows_of])
    rest = f"{len(table.refusals)} cannot be rewritten, {len(table.others)} are no sites"
    counts = f"{counted(len(table.sites), 'site')}, {rest}"
    say(counts if record is None else f"beside these: {counts}")


def _cap(cap: float | None) -> str:
    return "" if cap is None else f"{cap:g}"
