"""`jr-onnx optimize`: save what a session makes of a retrofit on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import force_option, model_argument, output_option, provider_option
from jr_onnx.cli.output import json_option, print_json, print_lines, print_message


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx optimize`."""

    model: Path
    op_library: bool | None
    provider: Literal["cpu", "cuda"]
    force: bool
    output: Path | None
    as_json: bool


@cli_command("optimize", Arguments, examples=("jr-onnx optimize model.jr.onnx -o fast.onnx",))
@model_argument
@option(
    "--op-library/--no-op-library",
    default=None,
    show_default="as the library is built",
    help="Use the op library: write jumps as its operators, or as standard ones.",
)
@provider_option("cpu", "cuda", what="Optimise for this host's CPU, or for CUDA on any host with the op library.")
@renamed_option("--target", "--provider", type=click.Choice(["cpu", "cuda"]))
@output_option("The model to write.", default="MODEL.fast.onnx")
@force_option
@json_option
def command(given: Arguments) -> None:
    """Optimise the retrofit MODEL for this host, or for CUDA, and save the result.

    The result opens faster than the retrofit and runs as fast as jr_onnx.InferenceSession makes it. For the CPU it is
    bound to this type of processor and this version of ONNX Runtime; jr_onnx.InferenceSession refuses it elsewhere.
    For CUDA every jump after a convolution adds the bias and the residual in the same pass; the result needs the op
    library.
    """
    from jr_onnx.errors import require

    require("onnxruntime", "cpu")
    from jr_onnx.runtime.saved import default_output, optimize

    path = given.output if given.output is not None else default_output(given.model)
    mark = optimize(given.model, path, use_library=given.op_library, force=given.force, target=given.provider)
    if given.as_json:
        print_json(mark)
    else:
        library = "operators of the op library" if mark.needs_library else "standard operators"
        fused = f", {mark.fused} of them with the bias of a convolution" if given.provider == "cuda" else ""
        print_lines(f"{mark.jumps} jumps as {library}{fused} -> {path}")
    if given.provider == "cuda":
        return
    print_message(
        f"only for {mark.host.machine} with ONNX Runtime {mark.host.onnxruntime} and {' '.join(mark.host.features)}"
    )
