"""`jr-onnx report`: the results of an evaluation, all shards together, as a page, Markdown, CSV or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import output_option
from jr_onnx.cli.output import json_option, print_json, print_message
from jr_onnx.cli.types import PATH

_ENDINGS = {"html": "html", "md": "md", "csv": "csv", "json": "json"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a person gives to `jr-onnx report`."""

    folders: tuple[Path, ...]
    form: Literal["html", "md", "csv", "json"]
    output: Path | None
    as_json: bool


@cli_command(
    "report",
    Arguments,
    examples=("jr-onnx report attacks -o report.html", "jr-onnx report attacks --format md -o report.md"),
)
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=PATH)
@option(
    "--format",
    "form",
    type=click.Choice(tuple(_ENDINGS)),
    default="html",
    help="What to write: a page, or its figures.",
)
@output_option("The file to write.", default="report.FORMAT in the first DIR")
@json_option
def command(given: Arguments) -> None:
    """Merge the results in DIR..., print them, and write them as one report.

    Shards of one run are merged. A run of the same models at another budget becomes a point of the security curve. The
    HTML page is self-contained: it loads nothing and runs no script.
    """
    from jr_onnx.cli.evaluation import show
    from jr_onnx.report import write_report

    ending = _ENDINGS[given.form]
    path = given.output if given.output is not None else given.folders[0] / f"report.{ending}"
    evaluation = write_report(given.folders, path, given.form)
    if given.as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    print_message(f"{'page' if given.form == 'html' else 'report'}: {path}")
