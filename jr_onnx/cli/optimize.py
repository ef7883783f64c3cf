"""`jr-onnx optimize`: save what a session makes of a retrofit on this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.options import force_option, model_argument
from jr_onnx.cli.output import json_option, print_json, say, tell

if TYPE_CHECKING:
    from jr_onnx.runtime.ops_library import Target


@click.command("optimize")
@model_argument
@click.option(
    "--op-library/--no-op-library",
    "use_library",
    default=None,
    help="Write jumps as operators of the op library, or as standard ones.  [default: as the library is built]",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="This host's CPU, or CUDA on any host with the op library.",
)
@force_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.fast.onnx beside it]"
)
@json_option
def command(
    model: Path, output: Path | None, use_library: bool | None, target: Target, force: bool, as_json: bool
) -> None:
    """Optimise the retrofit MODEL for this host, or for CUDA, and save the result.

    The result opens faster than the retrofit itself and runs as fast as jr_onnx.InferenceSession makes it. For the
    CPU it is for this processor type and this version of ONNX Runtime; jr_onnx.InferenceSession refuses it elsewhere.
    For CUDA every jump behind a convolution adds the bias and the residual in the same pass; the result needs the op
    library.
    """
    from jr_onnx.errors import require

    require("onnxruntime", "cpu")
    from jr_onnx.runtime.saved import default_output, optimize

    path = output if output is not None else default_output(model)
    mark = optimize(model, path, use_library=use_library, force=force, target=target)
    if as_json:
        print_json(mark)
    else:
        library = "operators of the op library" if mark.needs_library else "standard operators"
        fused = f", {mark.fused} of them with the bias of a convolution" if target == "cuda" else ""
        tell(f"{mark.jumps} jumps as {library}{fused} -> {path}")
    if target == "cuda":
        return
    say(f"only for {mark.host.machine} with ONNX Runtime {mark.host.onnxruntime} and {' '.join(mark.host.features)}")
