"""`jr-onnx package kserve`: the options of a KServe package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import click

from jr_onnx.cli.command import cli_command, option, renamed_option
from jr_onnx.cli.options import DeploymentArguments, deployment_options
from jr_onnx.cli.output import print_message
from jr_onnx.cli.types import INTEGER


@dataclass(frozen=True, kw_only=True)
class Arguments(DeploymentArguments):
    """The arguments and options of `jr-onnx package kserve`."""

    storage_uri: str
    name: str | None
    namespace: str | None
    transport: Literal["rest", "grpc"]
    gpus_per_replica: int | None
    min_replicas: int
    max_replicas: int
    target_concurrency: int
    service_account: str | None


@cli_command(
    "kserve", Arguments, examples=("jr-onnx package kserve repository --storage-uri s3://bucket/models -o kserve",)
)
@deployment_options
@option(
    "--storage-uri", required=True, metavar="URI", help="Where REPOSITORY is uploaded to, such as s3://bucket/models."
)
@option("--name", metavar="NAME", show_default="that of the only model", help="Name of the InferenceService.")
@option("--namespace", metavar="NAME", show_default="that of kubectl", help="Kubernetes namespace.")
@option("--transport", type=click.Choice(["rest", "grpc"]), default="rest", help="What clients use.")
@option("--gpus-per-replica", type=INTEGER, show_default="1 if a model needs one", help="GPUs of a replica.")
@renamed_option("--gpus", "--gpus-per-replica", type=INTEGER)
@option("--min-replicas", type=INTEGER, default=1, help="Fewest replicas; 0 scales to zero.")
@option("--max-replicas", type=INTEGER, default=3, help="Most replicas.")
@option("--target-concurrency", type=INTEGER, default=8, help="Requests in flight per replica.")
@option("--service-account", metavar="NAME", help="Service account with the credentials of the storage.")
def command(given: Arguments) -> None:
    """Write KServe manifests for a model repository.

    They are a ServingRuntime and an InferenceService. REPOSITORY is what `jr-onnx package triton` wrote.
    """
    from jr_onnx.deploy.deployment import Resources, Trust
    from jr_onnx.deploy.kserve import KServeOptions, Scaling, package_kserve

    options = KServeOptions(
        storage_uri=given.storage_uri,
        name=given.name,
        namespace=given.namespace,
        release=given.triton_release,
        transport=given.transport,
        resources=Resources(given.cpus, given.memory),
        gpus=given.gpus_per_replica,
        scaling=Scaling(given.min_replicas, given.max_replicas, given.target_concurrency),
        service_account=given.service_account,
        load_seconds=given.load_seconds,
        force=given.force,
        sign_key=given.sign_key,
        trust=Trust(given.key, given.not_before),
    )
    given.show(package_kserve(given.repository, given.output, options))
    print_message(f"next: upload {given.repository} to {options.storage_uri}, then kubectl apply -f {given.output}")
