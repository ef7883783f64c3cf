"""`jr-onnx restore`: undo a rewrite."""

from __future__ import annotations

from pathlib import Path

import click

from jr_onnx.cli.options import force_option, model_argument
from jr_onnx.cli.output import tell


@click.command("restore")
@model_argument
@force_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.restored.onnx beside it]"
)
def command(model: Path, output: Path | None, force: bool) -> None:
    """Give the original of the retrofit MODEL back, bit for bit in everything but the provenance."""
    from jr_onnx.rewrite import restore

    tell(f"restored -> {restore(model, output, force=force)}")
