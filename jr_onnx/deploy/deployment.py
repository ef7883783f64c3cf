"""What KServe and Compose packages share: options, the repository they deploy, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import yaml

from jr_onnx.deploy.atomic import publish, staging, sync_tree
from jr_onnx.deploy.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Kind,
    glance,
    write_manifest,
)
from jr_onnx.deploy.releases import DEFAULT_RELEASE, find_release
from jr_onnx.deploy.signing import check_private_key, sign
from jr_onnx.deploy.verification import VerifiedPackage, verify
from jr_onnx.errors import InputError, IntegrityError, OutputError, RefusalError, require_number
from jr_onnx.records import JsonValue

GPU_RESOURCE = "nvidia.com/gpu"
SERVER_UID = 1000
"""The user `triton-server` of NVIDIA's image."""

MOST_SECONDS = 86_400
MOST_COPIES = 1024

_CPUS = re.compile(r"[1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*|[1-9][0-9]*m")
_MEMORY = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti)")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica gets.

    Attributes:
        cpus: CPU cores, as Kubernetes writes them: 2, 0.5 or 500m.
        memory: Memory with a binary unit: 4Gi.
    """

    cpus: str = "2"
    memory: str = "4Gi"

    def __post_init__(self) -> None:
        """Refuse what Kubernetes would refuse."""
        if _CPUS.fullmatch(self.cpus) is None:
            raise InputError(f"the CPU limit is {self.cpus!r}, expected cores, for instance 2, 0.5 or 500m")
        if _MEMORY.fullmatch(self.memory) is None:
            raise InputError(f"the memory limit is {self.memory!r}, expected a size, for instance 4Gi or 512Mi")


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was written: the folder, and its files but the manifest."""

    folder: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Repository:
    """A verified Triton repository.

    Attributes:
        root: Its folder.
        packages: Every version of every model in it.
    """

    root: Path
    packages: tuple[VerifiedPackage, ...]

    @property
    def needs_gpu(self) -> bool:
        """Whether any model runs on a GPU."""
        return any(package.manifest.triton and package.manifest.triton.device == "gpu" for package in self.packages)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, each once."""
        return tuple(sorted({package.manifest.name for package in self.packages}))


@dataclass(frozen=True, slots=True)
class Trust:
    """What a repository must prove before it is deployed.

    Attributes:
        key: Public key (PEM) that every package must be signed for; None checks the manifests alone.
        not_before: Refuse packages made earlier; needs a key.
    """

    key: Path | None = None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOptions:
    """Options of every deployment.

    Attributes:
        release: Triton release.
        resources: What one replica gets.
        load_seconds: How long the models may take to load before a replica counts as unhealthy.
        force: Replace an older package.
        sign_key: Private key (PEM) that signs the manifest.
        trust: What the repository must prove first.
    """

    release: str = DEFAULT_RELEASE
    resources: Resources = field(default_factory=Resources)
    load_seconds: int = 120
    force: bool = False
    sign_key: Path | None = None
    trust: Trust = field(default_factory=Trust)

    def check(self) -> None:
        """Refuse times out of range.

        Raises:
            InputError: The loading time is not between a second and a day.
        """
        require_number("the loading time in seconds", self.load_seconds, 1, MOST_SECONDS)


def server_command(mount_path: str, http_port: int, grpc_port: int, *more: str) -> list[str]:
    """Return the command that starts Triton in a replica."""
    return [
        "tritonserver",
        f"--model-repository={mount_path}",
        "--disable-auto-complete-config",
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        *more,
        "--exit-timeout-secs=30",
    ]


def open_repository(folder: Path, options: DeploymentOptions, mount_path: str, gpus_per_replica: int) -> Repository:
    """Verify a repository and check that every model in it can run in this deployment.

    Args:
        folder: The repository.
        options: The release of the deployment, and what the repository must prove.
        mount_path: Where a replica sees the repository.
        gpus_per_replica: GPUs that a replica sees.

    Raises:
        IntegrityError: The repository does not match its manifests, or its signatures do not hold.
        RefusalError: A model was packaged for a newer release, another path, or GPUs that are not there.
    """
    find_release(options.release)
    packages = tuple(
        package
        for package in verify(folder, options.trust.key, not_before=options.trust.not_before)
        if package.manifest.kind == "triton"
    )
    root = folder.resolve()
    misplaced = [package.label for package in packages if package.base.parent != root]
    if not packages or misplaced:
        raise InputError(
            f"{folder} is not a model repository: {misplaced[0] if misplaced else 'no model'} lies elsewhere in it",
            hint="Give the folder that jr-onnx package triton wrote to with -o",
        )
    for package in packages:
        _check_package(package, release=options.release, mount_path=mount_path, gpus_per_replica=gpus_per_replica)
    return Repository(root, packages)


def write_deployment(
    target: Path, files: Mapping[str, str], options: DeploymentOptions, *, kind: Kind, name: str
) -> Deployed:
    """Write the files of a deployment with their manifest, in one step.

    Args:
        target: The folder, which must not exist.
        files: File name -> text.
        options: Whether a folder of this kind is replaced, and what signs the manifest.
        kind: What it is.
        name: Name of the deployment.

    Raises:
        OutputError: The folder exists.
    """
    if options.sign_key is not None:
        check_private_key(options.sign_key)
    replace = _check_target(target, kind, force=options.force)
    with staging(target) as aside:
        staged = aside / "package"
        staged.mkdir()
        for file_name, text in files.items():
            (staged / file_name).write_text(text, encoding="utf-8")
        manifest = write_manifest(staged, kind=kind, name=name)
        if options.sign_key is not None:
            sign(manifest, staged / SIGNATURE_NAME, options.sign_key)
        sync_tree(staged)
        publish(staged, target, replace=replace)
    return Deployed(target, tuple(target / file_name for file_name in files))


def to_yaml(document: Mapping[str, JsonValue]) -> str:
    """Return a document as YAML, keys in their order, without anchors."""
    return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=1 << 16)


class _PlainDumper(yaml.SafeDumper):
    """A dumper without anchors: a value that occurs twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _check_package(package: VerifiedPackage, *, release: str, mount_path: str, gpus_per_replica: int) -> None:
    settings = package.manifest.triton
    if settings is None:
        raise IntegrityError(f"the manifest of {package.label} does not say for which server it is")
    if settings.release > release:
        raise RefusalError(
            f"{package.label} was packaged for Triton {settings.release}, the deployment runs {release}",
            hint=f"Package it again with --triton-release {release}, which checks that it opens there",
        )
    if settings.server_path is not None and settings.server_path.rstrip("/") != mount_path:
        raise RefusalError(
            f"{package.label} opens its operator library below {settings.server_path}, a replica sees {mount_path}",
            hint=f"Package it again with --repository-path-on-server {mount_path}",
        )
    if settings.device == "gpu" and gpus_per_replica == 0:
        raise RefusalError(
            f"{package.label} runs on a GPU, the deployment has none",
            hint="Give package compose --gpus, or package kserve --gpus-per-replica",
        )
    if settings.gpus and max(settings.gpus) >= gpus_per_replica:
        raise RefusalError(
            f"{package.label} names GPU {max(settings.gpus)}, a replica sees {gpus_per_replica}",
            hint="Package it again without --gpus, which takes all that are there",
        )


def _check_target(target: Path, kind: Kind, *, force: bool) -> bool:
    """Return whether the target is to be replaced; refuse one that exists and is not such a package."""
    if not target.exists():
        return False
    if not force:
        raise OutputError(f"{target} already exists", hint="Use --force to replace it")
    if glance(target / MANIFEST_NAME).kind != kind:
        raise OutputError(
            f"{target} exists and is not a {kind} package, so --force does not replace it", hint="Choose another folder"
        )
    return True
