"""`jr-onnx report`: the results of an evaluation, all shards together, as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from jr_onnx.cli.command import cli_command
from jr_onnx.cli.options import output_option
from jr_onnx.cli.output import json_option, print_json, print_message
from jr_onnx.cli.types import PATH


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a person gives to `jr-onnx report`."""

    folders: tuple[Path, ...]
    output: Path | None
    as_json: bool


@cli_command("report", Arguments, examples=("jr-onnx report attacks -o report.html",))
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=PATH)
@output_option("The page to write.", default="report.html in the first DIR")
@json_option
def command(given: Arguments) -> None:
    """Merge the results in DIR... (shards of one run), print them, and write them as one HTML page.

    The page is self-contained: it loads nothing and runs no script.
    """
    from jr_onnx.cli.evaluation import show
    from jr_onnx.report import write_report

    path = given.output if given.output is not None else given.folders[0] / "report.html"
    evaluation = write_report(given.folders, path)
    if given.as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    print_message(f"page: {path}")
