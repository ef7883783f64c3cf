"""`jr-onnx restore`: undo a rewrite."""

from __future__ import annotations

from pathlib import Path

import click

from jr_onnx.cli.options import force_option, model_argument
from jr_onnx.cli.output import say, tell


@click.command("restore")
@model_argument
@force_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.restored.onnx beside it]"
)
def command(model: Path, output: Path | None, force: bool) -> None:
    """Give the original of the retrofit MODEL back, bit for bit in everything but the provenance.

    Of a model that was rewritten with --opset that is the converted original.
    """
    from jr_onnx import provenance
    from jr_onnx.modelfile import load
    from jr_onnx.rewriter import restore

    record = provenance.read(load(model).proto)
    tell(f"restored -> {restore(model, output, force=force)}")
    if record is not None and record.converted_from_opset is not None:
        say(
            f"note: {record.source_name or 'the source'} was converted from opset {record.converted_from_opset} before "
            "the rewrite; this is the converted model, not that file"
        )
