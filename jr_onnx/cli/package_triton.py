"""`jr-onnx package triton`: the options of a Triton package, and what they mean to `jr_onnx.deploy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import model_argument, output_option, provider_option, release_option, sign_option
from jr_onnx.cli.output import next_step, print_lines, print_message
from jr_onnx.cli.types import INTEGER, PATH, NamedShape, Numbers, by_name

if TYPE_CHECKING:
    from jr_onnx.deploy.options import OpLibrary, TritonOptions


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx package triton`."""

    model: Path
    output: Path
    name: str | None
    version: int
    triton_release: str
    max_batch: int | None
    preferred_batch: tuple[int, ...]
    batch_delay_us: int
    provider: Literal["cpu", "cuda", "tensorrt"]
    instances: int
    gpus: tuple[int, ...]
    precision: Literal["FP32", "FP16"]
    threads: int | None
    warmup_shape: Mapping[str, tuple[int, ...]]
    warmup: bool
    labels: Path | None
    labels_output: str | None
    op_library: bool
    op_library_file: Path | None
    repository_path_on_server: str | None
    all_versions: bool
    allow_fixed_kappa: bool
    expose_kappa: bool
    force: bool
    sign_key: Path | None


@cli_command(
    "triton",
    Arguments,
    examples=("jr-onnx package triton model.jr.onnx -o repository --name digits",),
    new_flags={"--op-library": "--op-library-file"},
)
@model_argument
@output_option("The model repository to write, or to add to.", required=True)
@option("--name", metavar="NAME", show_default="the name of the file", help="Name of the model.")
@option("--version", type=INTEGER, default=1, help="Version of the model.")
@release_option
@option(
    "--max-batch",
    type=INTEGER,
    show_default="32",
    help="Largest batch; 0 for none. Requests are joined if the rows of a batch are proved independent, or if this "
    "option is given.",
)
@option("--preferred-batch", type=Numbers(), default=(), help="Batch sizes to run at once, such as 8,16.")
@option("--batch-delay-us", type=INTEGER, default=500, help="Longest wait to be joined into a batch, in microseconds.")
@renamed_option("--delay-us", "--batch-delay-us", type=INTEGER)
@provider_option("cpu", "cuda", "tensorrt", what="Where ONNX Runtime computes on the server.")
@renamed_option(
    "--device",
    "--provider",
    type=click.Choice(["cpu", "gpu"]),
    convert={"cpu": "cpu", "gpu": "cuda"}.__getitem__,
)
@renamed_option("--accelerator", "--provider", type=click.Choice(["cuda", "tensorrt"]))
@option("--instances", type=INTEGER, default=1, help="Sessions that run at a time (on each GPU).")
@option("--gpus", type=Numbers(), default=(), show_default="all", help="The GPUs to use, such as 0,1.")
@option("--precision", type=click.Choice(["FP32", "FP16"]), default="FP32", help="Precision of TensorRT.")
@option("--threads", type=INTEGER, show_default="all cores", help="Threads of a session on the CPU.")
@option(
    "--warmup-shape",
    type=NamedShape(),
    multiple=True,
    callback=by_name,
    help="Shape, without batch, of an input with dynamic axes. Repeatable.",
)
@option("--warmup/--no-warmup", default=True, help="Run the model before the server is ready.")
@option("--labels", type=PATH, help="Text file with one class name a line.")
@option(
    "--labels-output", metavar="NAME", show_default="the only one that fits", help="The output that the labels name."
)
@option("--op-library", is_flag=True, help="Use the op library: package it with the model.")
@renamed_option("--with-op-library", "--op-library", is_flag=True)
@option("--op-library-file", type=PATH, show_default="the one built here", help="The op library to package.")
@option("--repository-path-on-server", metavar="PATH", help="Absolute path of the repository on the server.")
@option("--all-versions", is_flag=True, help="Serve every version, not only the latest.")
@option("--allow-fixed-kappa", is_flag=True, help="Accept a random kappa that nothing will draw on the server.")
@option("--expose-kappa", is_flag=True, help="Let clients set the kappa input.")
@option("--force", is_flag=True, help="Replace the same version of the same model.")
@sign_option
def command(given: Arguments) -> None:
    """Add a model to a Triton model repository.

    The repository is created if it does not exist. It gets NAME/config.pbtxt and NAME/VERSION/model.onnx with its
    external data, labels, provenance and a manifest with the SHA-256 of every file. Other models and versions stay as
    they are.
    """
    from jr_onnx.deploy.triton import package_triton

    packaged = package_triton(given.model, given.output, _options(given))
    for note in packaged.notes:
        print_message(f"note: {note}")
    print_lines(str(packaged.folder))
    print_message(next_step("verify-package", given.output))


def _options(given: Arguments) -> TritonOptions:
    from jr_onnx.deploy.options import Batching, Placement, TritonOptions, WarmUp, default_model_name

    return TritonOptions(
        name=given.name if given.name is not None else default_model_name(given.model),
        version=given.version,
        release=given.triton_release,
        batching=Batching(given.max_batch, given.preferred_batch, given.batch_delay_us),
        placement=Placement(
            device="cpu" if given.provider == "cpu" else "gpu",
            accelerator="tensorrt" if given.provider == "tensorrt" else None,  # CUDA is the default on a GPU
            instances=given.instances,
            gpus=given.gpus,
            precision=given.precision,
            threads=given.threads,
        ),
        warm_up=WarmUp(given.warmup, given.warmup_shape),
        labels=given.labels,
        labels_output=given.labels_output,
        op_library=_op_library(given),
        all_versions=given.all_versions,
        allow_fixed_kappa=given.allow_fixed_kappa,
        expose_kappa=given.expose_kappa,
        force=given.force,
        sign_key=given.sign_key,
    )


def _op_library(given: Arguments) -> OpLibrary | None:
    from jr_onnx.deploy.options import OpLibrary

    if not given.op_library and given.op_library_file is None:
        return None
    if given.repository_path_on_server is None:
        raise click.UsageError(
            "--op-library needs --repository-path-on-server, the absolute path of the repository there "
            "(for instance /models; KServe: /mnt/models)"
        )
    return OpLibrary(given.repository_path_on_server, given.op_library_file)
