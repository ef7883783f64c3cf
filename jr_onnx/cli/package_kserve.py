"""`jr-onnx package kserve`: the options of a KServe package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jr_onnx.cli.options import deployment_options, repository_argument, warn_unless_checked
from jr_onnx.cli.output import say, tell


@click.command("kserve")
@repository_argument
@deployment_options
@click.option("--storage-uri", required=True, help="Where the repository's root is uploaded to: s3://bucket/models.")
@click.option("--name", help="Name of the InferenceService; without it, that of the only model.")
@click.option("--namespace", help="Kubernetes namespace; without it, kubectl's.")
@click.option(
    "--transport", type=click.Choice(["rest", "grpc"]), default="rest", show_default=True, help="What clients speak."
)
@click.option("--gpus", type=int, help="GPUs of a replica; without it, one where a model needs it.")
@click.option("--min-replicas", type=int, default=1, show_default=True, help="Fewest replicas; 0 scales to zero.")
@click.option("--max-replicas", type=int, default=3, show_default=True, help="Most replicas.")
@click.option("--target-concurrency", type=int, default=8, show_default=True, help="Requests in flight per replica.")
@click.option("--service-account", help="Service account with the storage's credentials.")
def command(repository: Path, folder: Path, **values: Any) -> None:
    """Write the KServe manifests for REPOSITORY, which `package triton` made: ServingRuntime and InferenceService."""
    from jr_onnx.deploy.deployment import Resources, Trust
    from jr_onnx.deploy.kserve import KServeOptions, Scaling, package_kserve

    options = KServeOptions(
        storage_uri=values["storage_uri"],
        name=values["name"],
        namespace=values["namespace"],
        release=values["triton_release"],
        transport=values["transport"],
        resources=Resources(values["cpus"], values["memory"]),
        gpus=values["gpus"],
        scaling=Scaling(values["min_replicas"], values["max_replicas"], values["target_concurrency"]),
        service_account=values["service_account"],
        load_seconds=values["load_seconds"],
        force=values["force"],
        sign_key=values["key"],
        trust=Trust(values["public_key"], values["not_before"]),
    )
    deployed = package_kserve(repository, folder, options)
    warn_unless_checked(values)
    for path in deployed.files:
        tell(str(path))
    say(f"next: upload {repository} to {options.storage_uri}, then kubectl apply -f {folder}")
