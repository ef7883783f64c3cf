"""`jr-onnx package kserve`: the options of a KServe package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("kserve")
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--storage-uri", required=True, help="Where the repository's root is uploaded to: s3://bucket/models.")
@click.option("--name", help="Name of the InferenceService; without it, that of the only model.")
@click.option("--namespace", help="Kubernetes namespace; without it, kubectl's.")
@click.option("--triton-release", default="26.08", show_default=True, help="Release that serves it.")
@click.option(
    "--transport", type=click.Choice(["rest", "grpc"]), default="rest", show_default=True, help="What clients speak."
)
@click.option("--cpus", default="2", show_default=True, help="CPU cores of a replica.")
@click.option("--memory", default="4Gi", show_default=True, help="Memory of a replica.")
@click.option("--gpus", type=int, help="GPUs of a replica; without it, one where a model needs it.")
@click.option("--min-replicas", type=int, default=1, show_default=True, help="Fewest replicas; 0 scales to zero.")
@click.option("--max-replicas", type=int, default=3, show_default=True, help="Most replicas.")
@click.option("--target-concurrency", type=int, default=8, show_default=True, help="Requests in flight per replica.")
@click.option("--service-account", help="Service account with the storage's credentials.")
@click.option("--load-seconds", type=int, default=120, show_default=True, help="Time the models may take to load.")
@click.option("--force", is_flag=True, help="Replace an older KServe package.")
@click.option("--sign", "key", type=click.Path(path_type=Path), help="Private key (PEM) that signs the package.")
def command(repository: Path, folder: Path, **values: Any) -> None:
    """Write the KServe manifests for REPOSITORY, which `package triton` made: ServingRuntime and InferenceService."""
    from jr_onnx.deploy.deployment import Resources
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
    )
    deployed = package_kserve(repository, folder, options)
    for path in deployed.files:
        click.echo(str(path))
    click.echo(f"next: upload {repository} to {options.storage_uri}, then kubectl apply -f {folder}", err=True)
