"""The options of a Triton package, and their ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from jr_onnx.deploy.releases import DEFAULT_RELEASE, find_release
from jr_onnx.errors import InputError, require_number

Device = Literal["cpu", "gpu"]
Accelerator = Literal["cuda", "tensorrt"]
_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LARGEST_INT32 = 2**31 - 1  # the widest that Triton's configuration holds everywhere
_MOST_COPIES = 1024


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are joined into batches.

    Attributes:
        max_size: Largest batch; 0 for none; None for 32 where the model's first dimension is open. A number above 1 is
            the user's word that rows are independent where that is not proved.
        preferred: Sizes to form as soon as they can be; none is the best choice for ONNX Runtime.
        delay_us: How long a request may wait for others, in microseconds.
    """

    max_size: int | None = None
    preferred: tuple[int, ...] = ()
    delay_us: int = 500

    def __post_init__(self) -> None:
        """Refuse sizes and delays that Triton would refuse."""
        require_number("the largest batch", self.max_size or 0, 0, _LARGEST_INT32)
        require_number("the batching delay in microseconds", self.delay_us, 0, _LARGEST_INT32)
        for size in self.preferred:
            require_number("a preferred batch size", size, 1, _LARGEST_INT32)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how often the model runs.

    Attributes:
        device: cpu or gpu.
        instances: Copies of the session (for each GPU).
        gpus: Which GPUs; none named means all the server sees.
        accelerator: Execution provider for the GPU beside ONNX Runtime's default.
        precision: Precision TensorRT may compute in.
        threads: Threads of one session on the CPU; None leaves it to ONNX Runtime (all cores).
    """

    device: Device = "cpu"
    instances: int = 1
    gpus: tuple[int, ...] = ()
    accelerator: Accelerator | None = None
    precision: Literal["FP32", "FP16"] = "FP32"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse GPU options on a CPU, and counts out of range."""
        require_number("the number of instances", self.instances, 1, _MOST_COPIES)
        if self.threads is not None:
            require_number("the number of threads", self.threads, 1, _MOST_COPIES)
        if self.device == "cpu" and (self.gpus or self.accelerator):
            what = f"the accelerator {self.accelerator!r} was" if self.accelerator else f"GPUs {list(self.gpus)} were"
            raise InputError(f"{what} asked for a model on the CPU", hint="Add --provider cuda")
        if self.precision != "FP32" and self.accelerator != "tensorrt":
            raise InputError(f"precision {self.precision} needs TensorRT", hint="Add --provider tensorrt")
        if len(set(self.gpus)) != len(self.gpus) or any(not 0 <= gpu < _MOST_COPIES for gpu in self.gpus):
            raise InputError(f"the GPUs are {list(self.gpus)}, expected different numbers from 0")


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What the server runs before it calls the model ready.

    Attributes:
        enabled: Whether it does.
        shapes: Input name -> shape without the batch dimension, for inputs with open dimensions.
    """

    enabled: bool = True
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpLibrary:
    """The library of the custom operator, packaged with the model.

    Attributes:
        path: The shared library; None for the one built with this package.
        server_path: Absolute path of the repository where the server sees it; Triton opens the library by it.
    """

    server_path: str
    path: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a relative path: Triton passes it on unchanged."""
        parts = PurePosixPath(self.server_path).parts
        if not self.server_path.startswith("/") or ".." in parts or "\x00" in self.server_path:
            raise InputError(
                f"the repository's path on the server is {self.server_path!r}, expected an absolute path",
                hint="For instance --repository-path-on-server /models (KServe: /mnt/models)",
            )


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Everything about a Triton package but the model and the repository.

    Attributes:
        name: Name of the model in the repository.
        version: Its version.
        release: Triton release that will serve it.
        batching: See `Batching`.
        placement: See `Placement`.
        warm_up: See `WarmUp`.
        labels: Text file with a class name a line.
        labels_output: The output the labels belong to; None for the only one whose size fits.
        op_library: Package the custom operator's library.
        all_versions: Serve every version, not only the latest.
        allow_fixed_kappa: Package a model whose kappa nothing would draw there.
        expose_kappa: Let clients set kappa.
        force: Replace the same version of the same model.
        sign_key: Private key (PEM) that signs the manifest.
    """

    name: str
    version: int = 1
    release: str = DEFAULT_RELEASE
    batching: Batching = field(default_factory=Batching)
    placement: Placement = field(default_factory=Placement)
    warm_up: WarmUp = field(default_factory=WarmUp)
    labels: Path | None = None
    labels_output: str | None = None
    op_library: OpLibrary | None = None
    all_versions: bool = False
    allow_fixed_kappa: bool = False
    expose_kappa: bool = False
    force: bool = False
    sign_key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse names and versions that cannot be folders of a Triton repository."""
        check_model_name(self.name)
        require_number("the version", self.version, 1, _LARGEST_INT32)
        if self.labels_output is not None and self.labels is None:
            raise InputError("an output for labels was named, but no labels", hint="Add --labels FILE")
        find_release(self.release)


def check_model_name(name: str) -> str:
    """Return a model's name, or refuse one that is not a safe folder name.

    Raises:
        InputError: It holds characters beside letters, digits, dots, dashes and underscores.
    """
    if _MODEL_NAME.fullmatch(name) is None:
        raise InputError(
            f"the model name is {name!r}, expected letters, digits, '_', '-' and '.' (not first), at most 128",
            hint="Choose one with --name",
        )
    return name


def default_model_name(path: Path) -> str:
    """Return the name a model gets when none is given: its file name without the endings."""
    return check_model_name(path.name.removesuffix(".onnx").removesuffix(".jr"))
