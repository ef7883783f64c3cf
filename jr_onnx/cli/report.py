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


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx report`."""

    paths: tuple[Path, ...]
    form: Literal["html", "md", "csv", "json"]
    output: Path | None
    as_json: bool


@cli_command(
    "report",
    Arguments,
    examples=("jr-onnx report attacks tune.json -o report.html", "jr-onnx report attacks --format md -o report.md"),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH)
@option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "csv", "json"]),
    default="html",
    help="What to write: a page, or its figures.",
)
@output_option("The file to write.", default="report.FORMAT in the first folder")
@json_option
def command(given: Arguments) -> None:
    """Merge the results at PATH..., print them, and write them as one report.

    A PATH is a folder of jr-onnx attack, of which there must be one: shards of one run are merged, and a run of the
    same models at another budget becomes a point of the security curve. Other results become sections: the JSON file
    of jr-onnx tune or harden (--result) or bench (--output), a hardened model, the folder of jr-onnx reproduce or one
    of its JSON files.

    The HTML page is self-contained: it loads nothing and runs no script.
    """
    from jr_onnx.cli.evaluation import show
    from jr_onnx.results import write_report

    path = given.output if given.output is not None else _first_folder(given.paths) / f"report.{given.form}"
    evaluation = write_report(given.paths, path, given.form)
    if given.as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    print_message(f"{'page' if given.form == 'html' else 'report'}: {path}")


def _first_folder(paths: tuple[Path, ...]) -> Path:
    return next((path for path in paths if path.is_dir()), paths[0].parent)
