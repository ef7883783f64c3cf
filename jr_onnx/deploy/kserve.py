"""Package a Triton repository for KServe: a ServingRuntime and an InferenceService.

    repository/   ->   deployment/servingruntime.yaml       how a replica is started
                                  inferenceservice.yaml     what it serves, with which resources, how it scales
                                  jr_onnx.manifest

The repository itself is uploaded by the user to where `storage_uri` points: its root, with `<model>/config.pbtxt`
below. The runtime is of our own and its version is written out, because the one KServe brings is years behind.
Security settings stand at the container, where Knative takes them without a feature flag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jr_onnx.deploy.deployment import (
    GPU_RESOURCE,
    MOST_COPIES,
    SERVER_UID,
    Deployed,
    DeploymentOptions,
    open_repository,
    server_command,
    to_yaml,
    write_deployment,
)
from jr_onnx.deploy.releases import image
from jr_onnx.errors import InputError, require_number
from jr_onnx.records import JsonValue

MOUNT_PATH = "/mnt/models"
HTTP_PORT = 8080
GRPC_PORT = 9000
METRICS_PORT = 8002
_MODEL_FORMAT = {"name": "triton", "version": "2"}
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,46}[a-z0-9])?")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s]+")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many replicas run.

    Attributes:
        minimum: Fewest; 0 lets Knative scale to zero.
        maximum: Most.
        concurrency: Requests in flight that one replica should have.
    """

    minimum: int = 1
    maximum: int = 3
    concurrency: int = 8

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if self.minimum < 0 or self.maximum < max(1, self.minimum):
            raise InputError(
                f"the replicas are {self.minimum} to {self.maximum}, expected 0 or more, and at most 1 or more"
            )
        require_number("the largest number of replicas", self.maximum, 1, MOST_COPIES)
        require_number("the target concurrency", self.concurrency, 1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class KServeOptions(DeploymentOptions):
    """The options of a KServe package.

    Attributes:
        storage_uri: Where the repository's root was uploaded to.
        name: Name of the InferenceService; None for that of the only model.
        namespace: Kubernetes namespace; None leaves it to kubectl.
        transport: The port that Knative routes to: rest or grpc.
        gpus: GPUs of a replica; None for one where a model needs it.
        scaling: See `Scaling`.
        service_account: Service account with the credentials of the storage.
    """

    storage_uri: str
    name: str | None = None
    namespace: str | None = None
    transport: Literal["rest", "grpc"] = "rest"
    gpus: int | None = None
    scaling: Scaling = field(default_factory=Scaling)
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Refuse names and addresses that Kubernetes or KServe would refuse."""
        if _URI.fullmatch(self.storage_uri) is None:
            raise InputError(
                f"the storage URI is {self.storage_uri!r}, expected scheme and place, for instance s3://bucket/models"
            )
        for what, name in (("namespace", self.namespace), ("service account", self.service_account)):
            if name is not None:
                _check_name(name, what)
        if self.gpus is not None:
            require_number("the number of GPUs", self.gpus, 0, MOST_COPIES)
        self.check()


def package_kserve(repository: str | Path, target: str | Path, options: KServeOptions) -> Deployed:
    """Write the KServe manifests of a packaged repository.

    Args:
        repository: A repository made by `package_triton`; it is verified first.
        target: The folder to write, which must not exist.
        options: Everything else.

    Raises:
        IntegrityError: The repository does not match its manifests, or its signatures do not hold.
        RefusalError: A model in it cannot run in this deployment.
        OutputError: The folder exists.
        InputError: The service has no usable name.
    """
    assumed_gpus = 1 if options.gpus is None else options.gpus
    opened = open_repository(Path(repository), options, MOUNT_PATH, assumed_gpus)
    gpus = options.gpus if options.gpus is not None else int(opened.needs_gpu)
    name = _check_name(options.name or _default_name(opened.names), "name of the service")
    files = {
        "servingruntime.yaml": to_yaml(serving_runtime(name, options, gpus)),
        "inferenceservice.yaml": to_yaml(inference_service(name, options, gpus)),
    }
    return write_deployment(Path(target), files, options, kind="kserve", name=name)


def serving_runtime(name: str, options: KServeOptions, gpus: int) -> dict[str, JsonValue]:
    """Return the ServingRuntime: one Triton container, not root, with probes."""
    container: dict[str, JsonValue] = {
        "name": "kserve-container",
        "image": image(options.release),
        "args": [*server_command(MOUNT_PATH, HTTP_PORT, GRPC_PORT, f"--metrics-port={METRICS_PORT}")],
        "ports": [_port(options)],
        "readinessProbe": {**_probe(options, "ready"), "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            **_probe(options, "live"),
            # Triton opens its ports only after the models are loaded.
            "initialDelaySeconds": options.load_seconds,
            "periodSeconds": 10,
            "failureThreshold": 3,
        },
        "resources": _resources(options, gpus),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": SERVER_UID,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": _metadata(_runtime_name(name), name, options),
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(METRICS_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{**_MODEL_FORMAT, "autoSelect": False}],
            "protocolVersions": ["v2", "grpc-v2"],
            "multiModel": False,
            "containers": [container],
        },
    }


def inference_service(name: str, options: KServeOptions, gpus: int) -> dict[str, JsonValue]:
    """Return the InferenceService: storage, runtime and its version, resources and autoscaling."""
    predictor: dict[str, JsonValue] = {
        "minReplicas": options.scaling.minimum,
        "maxReplicas": options.scaling.maximum,
        "scaleMetric": "concurrency",
        "scaleTarget": options.scaling.concurrency,
    }
    if options.service_account is not None:
        predictor["serviceAccountName"] = options.service_account
    predictor["model"] = {
        "modelFormat": dict(_MODEL_FORMAT),
        "runtime": _runtime_name(name),
        "runtimeVersion": f"{options.release}-py3",
        "protocolVersion": "v2" if options.transport == "rest" else "grpc-v2",
        "storageUri": options.storage_uri,
        "resources": _resources(options, gpus),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(name, name, options),
        "spec": {"predictor": predictor},
    }


def _port(options: KServeOptions) -> dict[str, JsonValue]:
    """Return the one port; its name tells Knative the protocol."""
    if options.transport == "grpc":
        return {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"}
    return {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}


def _probe(options: KServeOptions, state: str) -> dict[str, JsonValue]:
    if options.transport == "grpc":
        return {"grpc": {"port": GRPC_PORT}, "timeoutSeconds": 5}
    return {"httpGet": {"path": f"/v2/health/{state}", "port": HTTP_PORT}, "timeoutSeconds": 5}


def _resources(options: KServeOptions, gpus: int) -> JsonValue:
    wanted: dict[str, JsonValue] = {"cpu": options.resources.cpus, "memory": options.resources.memory}
    if gpus:
        wanted[GPU_RESOURCE] = str(gpus)
    return {"requests": wanted, "limits": dict(wanted)}


def _metadata(name: str, service: str, options: KServeOptions) -> dict[str, JsonValue]:
    metadata: dict[str, JsonValue] = {"name": name}
    if options.namespace is not None:
        metadata["namespace"] = options.namespace
    metadata["labels"] = {"app.kubernetes.io/name": service, "app.kubernetes.io/managed-by": "jr-onnx"}
    return metadata


def _runtime_name(name: str) -> str:
    return f"{name}-triton"


def _default_name(models: tuple[str, ...]) -> str:
    """Return the only model's name, its dots and underscores turned into dashes."""
    if len(models) != 1:
        raise InputError(
            f"the repository holds {len(models)} models ({', '.join(models)}), so the service has no obvious name",
            hint="Choose one with --name",
        )
    return models[0].lower().replace("_", "-").replace(".", "-")


def _check_name(name: str, what: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InputError(
            f"the {what} is {name!r}, expected lower-case letters, digits and '-', first a letter, at most 48",
            hint="Choose one with --name" if what.startswith("name of") else "",
        )
    return name
