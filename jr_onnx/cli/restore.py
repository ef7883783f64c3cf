"""`jr-onnx restore`: undo a rewrite."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("restore")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.restored.onnx beside it]"
)
def command(model: Path, output: Path | None, force: bool) -> None:
    """Give the original of the retrofit MODEL back, bit for bit in everything but the provenance."""
    from jr_onnx.rewrite import restore

    click.echo(f"restored -> {restore(model, output, force=force)}")
