"""`jr-onnx serve`: serve models over REST and gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import TrustArguments, fallback_option, trust_options
from jr_onnx.cli.output import print_message
from jr_onnx.cli.types import INTEGER, PATH, Numbers

if TYPE_CHECKING:
    from jr_onnx.serve.options import ServeOptions

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Arguments(TrustArguments):
    """The arguments and options of `jr-onnx serve`."""

    models: tuple[str, ...]
    host: str
    http_port: int
    grpc_port: int
    no_grpc: bool
    tls_cert: Path | None
    tls_key: Path | None
    token_file: Path | None
    all_versions: bool
    model_control: bool | None
    expose_kappa: bool
    reject_non_finite: bool
    max_batch: int
    join_rows: bool
    batch_delay_us: int
    instances: int
    threads: int | None
    provider: tuple[str, ...]
    allow_fallback: bool
    cuda_options: str
    graph_batch: tuple[int, ...]
    max_body_mib: int
    max_json_mib: int
    max_total_mib: int
    max_rows: int
    max_queue: int
    timeout: float
    drain: float
    drain_delay: float


@cli_command("serve", Arguments, examples=("jr-onnx serve digits=model.jr.onnx",))
@click.argument("models", nargs=-1, required=True, metavar="MODEL_OR_REPOSITORY...")
@option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all interfaces.")
@option("--http-port", type=INTEGER, default=8000, help="REST port; 0 takes a free one.")
@option("--grpc-port", type=INTEGER, default=8001, help="gRPC port; 0 takes a free one.")
@option("--no-grpc", is_flag=True, help="Serve REST only.")
@option("--tls-cert", type=PATH, help="Certificate chain (PEM) for REST and gRPC; needs --tls-key.")
@option("--tls-key", type=PATH, help="Private key (PEM) of the certificate.")
@option("--token-file", type=PATH, help="File with the bearer token that clients must send.")
@trust_options
@option("--all-versions", is_flag=True, help="Serve every version of a packaged model, not only the latest.")
@option(
    "--model-control/--no-model-control",
    default=None,
    show_default="only if --host is this machine alone",
    help="Let clients load and unload models.",
)
@option("--expose-kappa", is_flag=True, help="Let clients set the kappa input.")
@option("--reject-non-finite", is_flag=True, help="Refuse NaN and infinities in inputs.")
@option("--max-batch", type=INTEGER, default=32, help="Largest batch to join requests into; 0 for none.")
@option("--join-rows", is_flag=True, help="Join requests even if rows are not proved independent.")
@option("--batch-delay-us", type=INTEGER, default=0, help="Longest wait to be joined into a batch, in microseconds.")
@option("--instances", type=INTEGER, default=1, help="Runs of one model at a time.")
@option("--threads", type=INTEGER, show_default="one less than the number of cores", help="Threads of one run.")
@option(
    "--provider",
    multiple=True,
    metavar="[cpu|cuda|tensorrt|NAME]",
    show_default="cpu",
    help="Where ONNX Runtime computes; NAME is ONNX Runtime's name of a provider. Repeatable, the preferred one first.",
)
@fallback_option
@option(
    "--cuda-options",
    metavar="NAME",
    default="default",
    help="Options of the CUDA provider: default, fuse_conv_bias, prefer_nhwc, both (of them), tf32_off, heuristic; "
    "graph, graph_fused, graph_both (captured graphs: alone, with fuse_conv_bias, with both).",
)
@option(
    "--graph-batch",
    type=Numbers(),
    default=(),
    show_default="powers of 2 up to the largest joined batch",
    help="Numbers of rows to capture a CUDA graph for; requests of other sizes run without.",
)
@option("--max-body-mib", type=INTEGER, default=64, help="Largest request body.")
@option("--max-json-mib", type=INTEGER, default=8, help="Largest JSON in a request body.")
@option("--max-total-mib", type=INTEGER, default=1024, help="All request bodies in flight together.")
@option("--max-rows", type=INTEGER, default=256, help="Largest batch of one request.")
@option("--max-queue", type=INTEGER, default=512, help="Waiting requests per model.")
@option("--timeout", type=float, default=30.0, help="Seconds a request may take.")
@option("--drain", type=float, default=30.0, help="Seconds to finish requests after SIGTERM.")
@option("--drain-delay", type=float, default=0.5, help="Seconds to keep answering before that, reported as not ready.")
def command(given: Arguments) -> None:
    """Serve models over REST and gRPC with the Open Inference Protocol v2, as Triton and KServe do.

    Each argument is a model file, NAME=FILE, or a repository that `jr-onnx package triton` wrote, whose manifest is
    checked first. A new random kappa is drawn for every request. Stops on SIGTERM, after it has answered all requests
    that it accepted.
    """
    options = _options(given)
    from jr_onnx.serve.start import serve

    serve(options, lambda line: print_message(f"jr-onnx: {line}"))


def _options(given: Arguments) -> ServeOptions:
    from jr_onnx.serve.options import DEFAULT_PROVIDERS, Address, Limits, Running, ServeOptions

    grpc_port = None if given.no_grpc else given.grpc_port
    return ServeOptions(
        models=given.models,
        address=Address(given.host, given.http_port, grpc_port, given.tls_cert, given.tls_key, given.token_file),
        limits=Limits(
            body_bytes=given.max_body_mib * _MEBIBYTE,
            json_bytes=given.max_json_mib * _MEBIBYTE,
            total_bytes=given.max_total_mib * _MEBIBYTE,
            rows=given.max_rows,
            queue=given.max_queue,
            timeout_s=given.timeout,
            drain_s=given.drain,
            drain_delay_s=given.drain_delay,
        ),
        running=Running(
            max_batch=given.max_batch,
            join_rows=given.join_rows,
            delay_us=given.batch_delay_us,
            instances=given.instances,
            threads=given.threads,
            providers=given.provider or DEFAULT_PROVIDERS,
            allow_fallback=given.allow_fallback,
            cuda_options=given.cuda_options,
            graph_batch=tuple(sorted(set(given.graph_batch))),
            expose_kappa=given.expose_kappa,
            reject_non_finite=given.reject_non_finite,
        ),
        key=given.key,
        not_before=given.not_before,
        all_versions=given.all_versions,
        model_control=given.model_control,
    )
