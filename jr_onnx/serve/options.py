"""The options of the server, and their ranges."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from jr_onnx.errors import InputError, require_choice, require_number
from jr_onnx.runtime.providers import CUDA, CUDA_OPTIONS, ProviderChoice, captures_graphs, full_name

MEBIBYTE = 1 << 20
DEFAULT_PROVIDERS = ("CPUExecutionProvider",)
_DAY_S = 86_400.0
# gRPC counts the bytes of a message in 32 bits, with a sign.
_LARGEST_BODY = 2047 * MEBIBYTE
# What each number is called, the least and the most of it; every number of `Limits` and `Running` stands here.
_LIMIT_RANGES: dict[str, tuple[str, float, float]] = {
    "body_bytes": ("the largest request body in bytes", 1, _LARGEST_BODY),
    "json_bytes": ("the largest JSON in bytes", 1, _LARGEST_BODY),
    "total_bytes": ("the bytes of all request bodies together", 1, 1 << 50),
    "rows": ("the largest number of rows of a request", 1, 1 << 24),
    "queue": ("the number of requests that may wait for a model", 1, 1_000_000),
    "timeout_s": ("the time for a request in seconds", 0.001, _DAY_S),
    "drain_s": ("the time to drain in seconds", 0.0, _DAY_S),
    "drain_delay_s": ("the delay before draining in seconds", 0.0, _DAY_S),
}
_RUNNING_RANGES: dict[str, tuple[str, float, float]] = {
    "max_batch": ("the largest batch", 0, 1 << 16),
    "delay_us": ("the batching delay in microseconds", 0, 10_000_000),
    "instances": ("the number of runs of a model at a time", 1, 1024),
    "threads": ("the number of threads of a run", 1, 1024),
}


def _require_ranges(options: object, ranges: dict[str, tuple[str, float, float]]) -> None:
    """Refuse numbers outside their ranges; None stands for a default.

    Raises:
        InputError: One is.
    """
    for name, (what, low, high) in ranges.items():
        value = getattr(options, name)
        if value is not None:
            require_number(what, value, low, high)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens.

    Attributes:
        host: Address or host name.
        http_port: Port of REST; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one, None turns gRPC off.
        tls_cert: Certificate chain (PEM) of both transports, with `tls_key`.
        tls_key: Its private key (PEM).
        token_file: File with the bearer token that clients must send; None accepts every client.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int | None = 8001
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse invalid ports and an incomplete TLS configuration."""
        for what, port in (("HTTP", self.http_port), ("gRPC", self.grpc_port)):
            if port is not None and not 0 <= port <= 65535:
                raise InputError(f"the {what} port is {port}, expected 0 to 65535")
        if self.http_port and self.http_port == self.grpc_port:
            raise InputError(f"the HTTP port and the gRPC port are both {self.http_port}, expected two ports")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError(
                "TLS needs a certificate and its key, found only one", hint="Give --tls-cert and --tls-key"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests.

    Attributes:
        body_bytes: Largest request body.
        json_bytes: Largest JSON in it; parsing JSON takes far longer than reading tensors.
        total_bytes: Largest sum of all bodies that are being received or wait for an answer.
        rows: Largest batch of one request.
        queue: How many requests of one model may wait.
        timeout_s: How long a request may take, from its last byte to its answer; also for its body to arrive.
        drain_s: How long accepted requests may take to finish when the server is asked to stop.
        drain_delay_s: How long the server goes on accepting, as "not ready", before it closes its doors.
    """

    body_bytes: int = 64 * MEBIBYTE
    json_bytes: int = 8 * MEBIBYTE
    total_bytes: int = 1024 * MEBIBYTE
    rows: int = 256
    queue: int = 512
    timeout_s: float = 30.0
    drain_s: float = 30.0
    drain_delay_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse limits that allow nothing, or are out of range."""
        _require_ranges(self, _LIMIT_RANGES)
        if self.total_bytes < self.body_bytes:
            raise InputError(
                f"all bodies together may have {self.total_bytes} bytes, expected the {self.body_bytes} of one or more"
            )


@dataclass(frozen=True, slots=True)
class Running:
    """How models run.

    Attributes:
        max_batch: Largest batch that waiting requests are joined into; 0 or 1 never joins.
        join_rows: Join requests even where rows are not proved independent; the user vouches for it.
        delay_us: How long a request may wait for others that join it, in microseconds.
        instances: How many runs of one model go on at a time.
        threads: Threads of one run; None leaves a core to the server itself.
        providers: ONNX Runtime's execution providers, the preferred one first.
        allow_fallback: Go on without providers that do not work here, with a warning, rather than refuse.
        cuda_options: Options of the CUDA provider, by a name of `runtime.providers.CUDA_OPTIONS`.
        graph_batch: Numbers of rows that CUDA graphs are captured for, if the options capture; () for the powers of 2
            up to the largest batch that requests are joined into.
        expose_kappa: Clients see the kappa input and may set it.
        reject_non_finite: Refuse NaN and infinities in inputs.
    """

    max_batch: int = 32
    join_rows: bool = False
    delay_us: int = 0
    instances: int = 1
    threads: int | None = None
    providers: tuple[str, ...] = DEFAULT_PROVIDERS
    allow_fallback: bool = False
    cuda_options: str = "default"
    graph_batch: tuple[int, ...] = ()
    expose_kappa: bool = False
    reject_non_finite: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _require_ranges(self, _RUNNING_RANGES)
        if self.join_rows and self.max_batch <= 1:
            raise InputError(f"requests were to be joined, but the largest batch is {self.max_batch}")
        if not self.providers:
            raise InputError("no execution provider was given, expected at least one")
        require_choice("the name of options of the CUDA provider", self.cuda_options, tuple(CUDA_OPTIONS))
        if self.cuda_options != "default" and CUDA not in map(full_name, self.providers):
            raise InputError(
                f"options of the CUDA provider were given ({self.cuda_options}), but not the provider",
                hint="Add --provider cuda",
            )
        if self.graph_batch and not self.captures:
            raise InputError(
                f"graphs of {self.graph_batch[0]} rows were asked for, but the options of the CUDA provider "
                f"({self.cuda_options}) capture none",
                hint="Add --cuda-options graph, graph_fused or graph_both",
            )
        for rows in self.graph_batch:
            require_number("the number of rows of a captured graph", rows, 1, 1 << 16)

    @property
    def captures(self) -> bool:
        """Whether runs are captured as CUDA graphs."""
        return captures_graphs(CUDA_OPTIONS[self.cuda_options])

    @property
    def provider_choices(self) -> tuple[ProviderChoice, ...]:
        """The providers with their options, as ONNX Runtime takes them."""
        options = CUDA_OPTIONS[self.cuda_options]
        return tuple((name, options) if name == CUDA and options else name for name in self.providers)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything `jr-onnx serve` can be told.

    Attributes:
        models: Model files (`NAME=FILE` gives a name) and model repositories.
        address: Where it listens.
        limits: Limits of requests.
        running: How models run.
        key: Public key (PEM) that every package of a repository must be signed for.
        not_before: Refuse packages made earlier; needs a key.
        all_versions: Serve all versions of a model in a repository instead of the latest.
        model_control: Clients may load and unload models; None lets them where only this machine can reach the server.
    """

    models: tuple[str, ...]
    address: Address = field(default_factory=Address)
    limits: Limits = field(default_factory=Limits)
    running: Running = field(default_factory=Running)
    key: Path | None = None
    not_before: datetime | None = None
    all_versions: bool = False
    model_control: bool | None = None

    @property
    def lets_clients_load(self) -> bool:
        """Whether clients may load and unload models."""
        return self.address.is_loopback if self.model_control is None else self.model_control

    def __post_init__(self) -> None:
        """Refuse to serve nothing."""
        if not self.models:
            raise InputError("no model was given", hint="Give model files or a model repository")
