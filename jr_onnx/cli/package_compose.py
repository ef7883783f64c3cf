"""`jr-onnx package compose`: the options of a compose package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from jr_onnx.cli.options import deployment_options, repository_argument, warn_unless_checked
from jr_onnx.cli.output import say, tell
from jr_onnx.cli.package_types import Numbers


@click.command("compose")
@repository_argument
@deployment_options
@click.option("--name", default="jr-onnx", show_default=True, help="Name of the project.")
@click.option("--replicas", type=int, default=2, show_default=True, help="Replicas on the CPU.")
@click.option("--gpus", type=Numbers(), default=(), help="One replica for each of these GPUs, for instance 0,1.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the balancer listens; 0.0.0.0: all.")
@click.option("--http-port", type=int, default=8000, show_default=True, help="Port of REST on the balancer.")
@click.option("--grpc-port", type=int, default=8001, show_default=True, help="Port of gRPC on the balancer.")
@click.option("--status-port", type=int, default=8404, show_default=True, help="Health and metrics of the balancer.")
@click.option("--request-seconds", type=int, default=60, show_default=True, help="Longest wait for an answer.")
def command(repository: Path, folder: Path, **values: Any) -> None:
    """Write a compose file for REPOSITORY, which `package triton` made: Triton's replicas behind a load balancer."""
    from jr_onnx.deploy.compose import ComposeOptions, Publish, package_compose
    from jr_onnx.deploy.deployment import Resources, Trust

    options = ComposeOptions(
        name=values["name"],
        replicas=values["replicas"],
        gpus=values["gpus"],
        release=values["triton_release"],
        resources=Resources(values["cpus"], values["memory"]),
        publish=Publish(values["address"], values["http_port"], values["grpc_port"], values["status_port"]),
        load_seconds=values["load_seconds"],
        request_seconds=values["request_seconds"],
        force=values["force"],
        sign_key=values["key"],
        trust=Trust(values["public_key"], values["not_before"]),
    )
    deployed = package_compose(repository, folder, options)
    warn_unless_checked(values)
    for path in deployed.files:
        tell(str(path))
    say(f"next: {shlex.join(('docker', 'compose', '-f', str(folder / 'compose.yaml'), 'up', '-d'))}")
