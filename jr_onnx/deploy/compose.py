"""Package a Triton repository for Docker Compose: replicas of Triton behind a load balancer.

    repository/   ->   deployment/compose.yaml     Triton and HAProxy
                                  haproxy.cfg      health checks, HTTP and gRPC
                                  jr_onnx.manifest

On the CPU the replicas are copies of one service, and `docker compose up --scale triton=5` changes their number up to
`MAX_REPLICAS`. On GPUs there is one service for each GPU, because Compose would give every copy the same one. Either
way the balancer finds them under the network name `triton` and asks each for its readiness.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from jr_onnx.deploy.deployment import (
    MOST_SECONDS,
    SERVER_UID,
    Deployed,
    DeploymentOptions,
    Repository,
    open_repository,
    server_command,
    to_yaml,
    write_deployment,
)
from jr_onnx.deploy.haproxy import GRPC_PORT, HAPROXY_IMAGE, HTTP_PORT, MAX_REPLICAS, STATUS_PORT, haproxy_config
from jr_onnx.deploy.releases import image
from jr_onnx.errors import InputError, require_number
from jr_onnx.records import JsonValue

MOUNT_PATH = "/models"
_NETWORK_NAME = "triton"
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Publish:
    """Where the load balancer listens on the host.

    Attributes:
        address: IP address; loopback by default, because Triton authenticates no client.
        http_port: Port for HTTP.
        grpc_port: Port for gRPC.
        status_port: Port for the balancer's health and Prometheus metrics.
    """

    address: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    status_port: int = 8404

    def __post_init__(self) -> None:
        """Refuse an invalid address or ports."""
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            raise InputError(
                f"the address is {self.address!r}, expected an IP address, for instance 127.0.0.1 or 0.0.0.0"
            ) from None
        ports = [self.http_port, self.grpc_port, self.status_port]
        if any(not 1 <= port <= 65535 for port in ports) or len(set(ports)) != len(ports):
            raise InputError(f"the ports are {ports}, expected three different ones from 1 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeOptions(DeploymentOptions):
    """The options of a Compose package.

    Attributes:
        name: Name of the project.
        replicas: Replicas on the CPU.
        gpus: One replica for each of these GPUs; none for the CPU.
        publish: See `Publish`.
        request_seconds: How long the balancer waits for an answer.
    """

    name: str = "jr-onnx"
    replicas: int = 2
    gpus: tuple[int, ...] = ()
    publish: Publish = field(default_factory=Publish)
    request_seconds: int = 60

    def __post_init__(self) -> None:
        """Refuse counts out of range, and a project name that Compose would refuse."""
        if _PROJECT_NAME.fullmatch(self.name) is None:
            raise InputError(
                f"the project name is {self.name!r}, expected lower-case letters, digits, '-' and '_'",
                hint="Choose one with --name",
            )
        if not 1 <= max(self.replicas, len(self.gpus)) <= MAX_REPLICAS or self.replicas < 1:
            raise InputError(f"the number of replicas is {self.replicas}, expected 1 to {MAX_REPLICAS}")
        if len(set(self.gpus)) != len(self.gpus):
            raise InputError(f"the GPUs are {list(self.gpus)}, expected each once")
        self.check()
        require_number("the time for a request in seconds", self.request_seconds, 1, MOST_SECONDS)


def package_compose(repository: str | Path, target: str | Path, options: ComposeOptions) -> Deployed:
    """Write the compose file and the balancer's configuration for a packaged repository.

    Args:
        repository: A repository made by `package_triton`; it is verified first, and mounted from where it is.
        target: The folder to write, which must not exist.
        options: Everything else.

    Raises:
        IntegrityError: The repository does not match its manifests, or its signatures do not hold.
        RefusalError: A model in it cannot run in this deployment.
        OutputError: The folder exists.
    """
    folder = Path(target)
    opened = open_repository(Path(repository), options, MOUNT_PATH, gpus_per_replica=1 if options.gpus else 0)
    files = {
        "compose.yaml": to_yaml(compose_file(opened, folder, options)),
        "haproxy.cfg": haproxy_config(request_seconds=options.request_seconds),
    }
    return write_deployment(folder, files, options, kind="compose", name=options.name)


def compose_file(repository: Repository, folder: Path, options: ComposeOptions) -> dict[str, JsonValue]:
    """Return the compose file; paths in it are relative to its folder."""
    source = os.path.relpath(repository.root, folder.absolute().resolve())
    if options.gpus:
        replicas = {f"triton-gpu{gpu}": _triton(source, options, gpu) for gpu in options.gpus}
    else:
        replicas = {_NETWORK_NAME: _triton(source, options, None)}
    return {
        "name": options.name,
        "services": {**replicas, "balancer": _balancer(list(replicas), options)},
        "networks": {"inference": {"driver": "bridge"}},
    }


def _triton(source: str, options: ComposeOptions, gpu: int | None) -> dict[str, JsonValue]:
    memory = options.resources.memory[:-1].lower()
    resources: dict[str, JsonValue] = {"limits": {"cpus": _compose_cpus(options.resources.cpus), "memory": memory}}
    if gpu is not None:
        device: JsonValue = {"driver": "nvidia", "device_ids": [str(gpu)], "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    deploy: dict[str, JsonValue] = {"replicas": options.replicas if gpu is None else 1, "resources": resources}
    return {
        "image": image(options.release),
        "command": [*server_command(MOUNT_PATH, HTTP_PORT, GRPC_PORT)],
        "user": f"{SERVER_UID}:{SERVER_UID}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [{"type": "bind", "source": _literal(source), "target": MOUNT_PATH, "read_only": True}],
        "networks": {"inference": {"aliases": [_NETWORK_NAME]}},
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", "-o", "/dev/null", f"http://127.0.0.1:{HTTP_PORT}/v2/health/ready"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{options.load_seconds}s",
        },
        "stop_grace_period": "40s",
        "restart": "unless-stopped",
        "deploy": deploy,
    }


def _balancer(replicas: list[str], options: ComposeOptions) -> dict[str, JsonValue]:
    publish = options.publish
    host = f"[{publish.address}]" if ":" in publish.address else publish.address
    ports = [(publish.http_port, HTTP_PORT), (publish.grpc_port, GRPC_PORT), (publish.status_port, STATUS_PORT)]
    return {
        "image": HAPROXY_IMAGE,
        "volumes": [
            {
                "type": "bind",
                "source": "./haproxy.cfg",
                "target": "/usr/local/etc/haproxy/haproxy.cfg",
                "read_only": True,
            }
        ],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "networks": ["inference"],
        "ports": [f"{host}:{outside}:{inside}" for outside, inside in ports],
        "depends_on": {name: {"condition": "service_healthy"} for name in replicas},
        "healthcheck": {
            "test": ["CMD", "wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{STATUS_PORT}/healthz"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
        },
        "stop_grace_period": "40s",
        "restart": "unless-stopped",
    }


def _compose_cpus(text: str) -> str:
    """Return cores as Compose writes them; it has no notation for thousandths."""
    return f"{int(text[:-1]) / 1000:g}" if text.endswith("m") else text


def _literal(path: str) -> str:
    """Return a path that Compose takes literally: marked as a path, its dollar signs escaped."""
    marked = path if path.startswith(("/", "..")) else f"./{path}"
    return marked.replace("$", "$$")
