"""`jr-onnx serve`: answer requests over REST and gRPC."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from jr_onnx.cli.options import fallback_option, key_option, not_before_option
from jr_onnx.cli.output import say

_PATH = click.Path(path_type=Path)
_MEBIBYTE = 1 << 20


@click.command("serve")
@click.argument("models", nargs=-1, required=True, metavar="MODEL_OR_REPOSITORY...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--http-port", type=int, default=8000, show_default=True, help="Port of REST; 0 takes a free one.")
@click.option("--grpc-port", type=int, default=8001, show_default=True, help="Port of gRPC; 0 takes a free one.")
@click.option("--no-grpc", is_flag=True, help="Serve REST only.")
@click.option("--tls-cert", type=_PATH, help="Certificate chain (PEM) for both transports; needs --tls-key.")
@click.option("--tls-key", type=_PATH, help="Private key (PEM) of the certificate.")
@click.option("--token-file", type=_PATH, help="File with the bearer token that clients must send.")
@key_option
@not_before_option
@click.option("--all-versions", is_flag=True, help="Serve all versions of a packaged model, not only the latest.")
@click.option(
    "--model-control/--no-model-control",
    default=None,
    help="Clients may load and unload models. Default: only where --host is this machine alone.",
)
@click.option("--expose-kappa", is_flag=True, help="Clients see the kappa input and may set it.")
@click.option("--reject-non-finite", is_flag=True, help="Refuse NaN and infinities in inputs.")
@click.option("--max-batch", type=int, default=32, show_default=True, help="Largest batch to join; 0 never joins.")
@click.option("--join-rows", is_flag=True, help="Join requests even where rows are not proved independent.")
@click.option("--batch-delay-us", type=int, default=0, show_default=True, help="How long a request waits to be joined.")
@click.option("--instances", type=int, default=1, show_default=True, help="Runs of one model at a time.")
@click.option("--threads", type=int, help="Threads of one run. Default: one less than there are cores.")
@click.option(
    "--provider",
    multiple=True,
    metavar="NAME",
    help="cpu, cuda, tensorrt or ONNX Runtime's name of a provider, repeatable, the preferred one first. Default: cpu.",
)
@fallback_option
@click.option("--max-body-mib", type=int, default=64, show_default=True, help="Largest request body.")
@click.option("--max-json-mib", type=int, default=8, show_default=True, help="Largest JSON in a request body.")
@click.option("--max-total-mib", type=int, default=1024, show_default=True, help="All request bodies together.")
@click.option("--max-rows", type=int, default=256, show_default=True, help="Largest batch of one request.")
@click.option("--max-queue", type=int, default=512, show_default=True, help="Waiting requests per model.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds a request may take.")
@click.option("--drain", type=float, default=30.0, show_default=True, help="Seconds to finish requests on SIGTERM.")
@click.option(
    "--drain-delay", type=float, default=0.5, show_default=True, help="Seconds to go on, not ready, before that."
)
def command(
    models: tuple[str, ...],
    host: str,
    http_port: int,
    grpc_port: int,
    no_grpc: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    key: Path | None,
    not_before: datetime | None,
    all_versions: bool,
    model_control: bool | None,
    expose_kappa: bool,
    reject_non_finite: bool,
    max_batch: int,
    join_rows: bool,
    batch_delay_us: int,
    instances: int,
    threads: int | None,
    provider: tuple[str, ...],
    allow_fallback: bool,
    max_body_mib: int,
    max_json_mib: int,
    max_total_mib: int,
    max_rows: int,
    max_queue: int,
    timeout: float,
    drain: float,
    drain_delay: float,
) -> None:
    """Serve models over REST and gRPC in the Open Inference Protocol v2, as Triton and KServe speak it.

    Each argument is a model file, NAME=FILE, or a repository that `jr-onnx package triton` wrote; its manifest is
    checked first. A random kappa is drawn anew for every request. Ends on SIGTERM, after the answers to all requests
    that were accepted.
    """
    from jr_onnx.serve.options import DEFAULT_PROVIDERS, Address, Limits, Running, ServeOptions

    options = ServeOptions(
        models=models,
        address=Address(host, http_port, None if no_grpc else grpc_port, tls_cert, tls_key, token_file),
        limits=Limits(
            body_bytes=max_body_mib * _MEBIBYTE,
            json_bytes=max_json_mib * _MEBIBYTE,
            total_bytes=max_total_mib * _MEBIBYTE,
            rows=max_rows,
            queue=max_queue,
            timeout_s=timeout,
            drain_s=drain,
            drain_delay_s=drain_delay,
        ),
        running=Running(
            max_batch=max_batch,
            join_rows=join_rows,
            delay_us=batch_delay_us,
            instances=instances,
            threads=threads,
            providers=provider or DEFAULT_PROVIDERS,
            allow_fallback=allow_fallback,
            expose_kappa=expose_kappa,
            reject_non_finite=reject_non_finite,
        ),
        key=key,
        not_before=not_before,
        all_versions=all_versions,
        model_control=model_control,
    )
    from jr_onnx.serve.start import serve

    serve(options, lambda line: say(f"jr-onnx: {line}"))
