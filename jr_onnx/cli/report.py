"""`jr-onnx report`: the results of an evaluation, all shards together, as a page."""

from __future__ import annotations

from pathlib import Path

import click

from jr_onnx.cli.output import json_option, print_json, say


@click.command("report")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page to write.  [default: report.html in the first DIR]",
)
@json_option
def command(folders: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Merge the results in DIR... (shards of one run) and write them as one HTML page.

    The page needs nothing else: no network, no script. The tables are printed too.
    """
    from jr_onnx.cli.evaluation import show
    from jr_onnx.evaluation.store import merged
    from jr_onnx.evaluation.summary import evaluate, finished
    from jr_onnx.report import write

    record, outcomes = merged(folders)
    evaluation = evaluate(record, outcomes)
    path = output if output is not None else folders[0] / "report.html"
    write(evaluation, finished(record, outcomes), path)
    if as_json:
        print_json(evaluation)
    else:
        show(evaluation)
    say(f"page: {path}")
