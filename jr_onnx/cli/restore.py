"""`jr-onnx restore`: undo a rewrite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jr_onnx.cli.command import cli_command
from jr_onnx.cli.options import force_option, model_argument, output_option
from jr_onnx.cli.output import print_lines, print_message


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx restore`."""

    model: Path
    output: Path | None
    force: bool


@cli_command("restore", Arguments, examples=("jr-onnx restore model.jr.onnx -o original.onnx",))
@model_argument
@output_option("The model to write.", default="MODEL.restored.onnx")
@force_option
def command(given: Arguments) -> None:
    """Restore the original of MODEL, a retrofit, bit for bit.

    For a model that was rewritten with --opset, this is the converted original.
    """
    from jr_onnx import provenance
    from jr_onnx.modelfile import load
    from jr_onnx.rewriter import restore

    record = provenance.read(load(given.model).proto)
    print_lines(f"restored -> {restore(given.model, given.output, force=given.force)}")
    if record is not None and record.converted_from_opset is not None:
        print_message(
            f"note: {record.source_name or 'the source'} was converted from opset {record.converted_from_opset} before "
            "the rewrite; this is the converted model, not that file"
        )
