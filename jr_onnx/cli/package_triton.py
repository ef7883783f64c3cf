"""`jr-onnx package triton`: the options of a Triton package, and what they mean to `jr_onnx.deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jr_onnx.cli.options import model_argument, release_option, sign_option
from jr_onnx.cli.output import next_step, say, tell
from jr_onnx.cli.package_types import NamedShape, Numbers

if TYPE_CHECKING:
    from jr_onnx.deploy.options import OpLibrary, TritonOptions


@click.command("triton")
@model_argument
@click.option(
    "-o", "--output", "repository", required=True, type=click.Path(path_type=Path), help="The model repository."
)
@click.option("--name", help="Name of the model; without it, the file's name.")
@click.option("--version", type=int, default=1, show_default=True, help="Version of the model.")
@release_option
@click.option(
    "--max-batch",
    type=int,
    help="Largest batch, 0 for none; without it 32, and requests are joined where rows are proved independent.",
)
@click.option("--preferred-batch", type=Numbers(), default=(), help="Batch sizes to form at once, for instance 8,16.")
@click.option("--delay-us", type=int, default=500, show_default=True, help="Longest wait for a batch (microseconds).")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Where it runs.")
@click.option("--instances", type=int, default=1, show_default=True, help="Sessions (for each GPU).")
@click.option("--gpus", type=Numbers(), default=(), help="Which GPUs, for instance 0,1; without it, all.")
@click.option("--accelerator", type=click.Choice(["cuda", "tensorrt"]), help="Execution provider on the GPU.")
@click.option("--precision", type=click.Choice(["FP32", "FP16"]), default="FP32", help="Precision of TensorRT.")
@click.option("--threads", type=int, help="Threads of a session on the CPU; without it, all cores.")
@click.option("--warmup-shape", type=NamedShape(), multiple=True, help="Shape without batch, for open sizes.")
@click.option("--warmup/--no-warmup", default=True, help="Run the model before the server is ready.")
@click.option("--labels", type=click.Path(path_type=Path), help="Text file with a class name a line.")
@click.option("--labels-output", metavar="NAME", help="The output the labels belong to.")
@click.option("--with-op-library", is_flag=True, help="Package the custom operator's library.")
@click.option("--op-library", type=click.Path(path_type=Path), help="That library, where it is not the built-in one.")
@click.option("--repository-path-on-server", metavar="PATH", help="Where the server sees the repository.")
@click.option("--all-versions", is_flag=True, help="Serve every version, not only the latest.")
@click.option("--allow-fixed-kappa", is_flag=True, help="Accept a kappa that nobody draws there.")
@click.option("--expose-kappa", is_flag=True, help="Let clients set the kappa input.")
@click.option("--force", is_flag=True, help="Replace the same version of the same model.")
@sign_option
def command(model: Path, repository: Path, **values: Any) -> None:
    """Add MODEL to a Triton model repository, which is made where there is none.

    The repository gets NAME/config.pbtxt and NAME/VERSION/model.onnx with its external data, labels, provenance and
    a manifest of every file's SHA-256. Other models and versions stay as they are.
    """
    from jr_onnx.deploy.triton import package_triton

    packaged = package_triton(model, repository, _options(model, values))
    for note in packaged.notes:
        say(f"note: {note}")
    tell(str(packaged.folder))
    say(next_step("verify-package", repository))


def _options(model: Path, values: dict[str, Any]) -> TritonOptions:
    from jr_onnx.deploy.options import Batching, Placement, TritonOptions, WarmUp, default_model_name

    return TritonOptions(
        name=values["name"] if values["name"] is not None else default_model_name(model),
        version=values["version"],
        release=values["triton_release"],
        batching=Batching(values["max_batch"], values["preferred_batch"], values["delay_us"]),
        placement=Placement(
            device=values["device"],
            instances=values["instances"],
            gpus=values["gpus"],
            accelerator=values["accelerator"],
            precision=values["precision"],
            threads=values["threads"],
        ),
        warm_up=WarmUp(values["warmup"], dict(values["warmup_shape"])),
        labels=values["labels"],
        labels_output=values["labels_output"],
        op_library=_op_library(values),
        all_versions=values["all_versions"],
        allow_fixed_kappa=values["allow_fixed_kappa"],
        expose_kappa=values["expose_kappa"],
        force=values["force"],
        sign_key=values["key"],
    )


def _op_library(values: dict[str, Any]) -> OpLibrary | None:
    from jr_onnx.deploy.options import OpLibrary

    server_path = values["repository_path_on_server"]
    if not values["with_op_library"] and values["op_library"] is None:
        return None
    if server_path is None:
        raise click.UsageError(
            "--with-op-library needs --repository-path-on-server, the absolute path of the repository there "
            "(for instance /models; KServe: /mnt/models)"
        )
    return OpLibrary(server_path, values["op_library"])
