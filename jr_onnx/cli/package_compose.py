"""`jr-onnx package compose`: the options of a Docker Compose package."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from jr_onnx.cli.command import cli_command, option
from jr_onnx.cli.options import DeploymentArguments, deployment_options
from jr_onnx.cli.output import print_message
from jr_onnx.cli.types import INTEGER, Numbers


@dataclass(frozen=True, kw_only=True)
class Arguments(DeploymentArguments):
    """The arguments and options of `jr-onnx package compose`."""

    name: str
    replicas: int
    gpus: tuple[int, ...]
    address: str
    http_port: int
    grpc_port: int
    status_port: int
    request_seconds: int


@cli_command("compose", Arguments, examples=("jr-onnx package compose repository --replicas 3 -o compose",))
@deployment_options
@option("--name", default="jr-onnx", metavar="NAME", help="Name of the project.")
@option("--replicas", type=INTEGER, default=2, help="Replicas on the CPU.")
@option("--gpus", type=Numbers(), default=(), help="Run one replica on each of these GPUs, such as 0,1.")
@option(
    "--address",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address of the load balancer; 0.0.0.0 for all interfaces.",
)
@option("--http-port", type=INTEGER, default=8000, help="REST port of the load balancer.")
@option("--grpc-port", type=INTEGER, default=8001, help="gRPC port of the load balancer.")
@option("--status-port", type=INTEGER, default=8404, help="Port of the load balancer's health and metrics.")
@option("--request-seconds", type=INTEGER, default=60, help="Longest wait for an answer.")
def command(given: Arguments) -> None:
    """Write a Docker Compose file for a model repository.

    It runs replicas of Triton behind a load balancer. REPOSITORY is what `jr-onnx package triton` wrote.
    """
    from jr_onnx.deploy.compose import ComposeOptions, Publish, package_compose
    from jr_onnx.deploy.deployment import Resources, Trust

    options = ComposeOptions(
        name=given.name,
        replicas=given.replicas,
        gpus=given.gpus,
        release=given.triton_release,
        resources=Resources(given.cpus, given.memory),
        publish=Publish(given.address, given.http_port, given.grpc_port, given.status_port),
        load_seconds=given.load_seconds,
        request_seconds=given.request_seconds,
        force=given.force,
        sign_key=given.sign_key,
        trust=Trust(given.key, given.not_before),
    )
    given.show(package_compose(given.repository, given.output, options))
    print_message(f"next: {shlex.join(('docker', 'compose', '-f', str(given.output / 'compose.yaml'), 'up', '-d'))}")
