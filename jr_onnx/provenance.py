"""What a retrofit writes into the model's metadata and reads back: by whom, from what, which kappa, how to undo it.

One metadata entry, `jr_onnx.provenance`, holds a JSON record. It carries the original node of every site, so that
`restore` needs nothing but the file. The functions take any ModelProto-like object; this module imports no onnx.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jr_onnx.errors import InputError, ModelError
from jr_onnx.kappa import KappaPlan
from jr_onnx.quantised import brought_up_to_date
from jr_onnx.records import Record, dumps, loads
from jr_onnx.semantics import SiteKappa

if TYPE_CHECKING:
    from onnx import ModelProto

METADATA_KEY = "jr_onnx.provenance"
OPTIMISED_KEY = "jr_onnx.optimised"
"""The metadata entry of a retrofit that `jr-onnx optimize` has joined with its neighbours; see `runtime.saved`."""

HARDENED_KEY = "jr_onnx.hardened"
"""The metadata entry of a model whose weights `jr-onnx harden` has trained; see `harden.record`."""


def is_hardened(model: ModelProto) -> bool:
    """Return whether `jr-onnx harden` has trained the weights of a model."""
    return any(entry.key == HARDENED_KEY for entry in model.metadata_props)


def form_label(form: str, cap: float | None) -> str:
    """Return the form of a site with its cap, for people: `relu`, or `clip <= 6`."""
    return form if cap is None else f"{form} <= {cap:g}"


@dataclass(frozen=True, slots=True)
class SiteRecord(Record):
    """One rewritten site.

    Attributes:
        id: Stable readable id: scope path and node or output name.
        form: How the ReLU was written: relu, clip, max, where, mask, abs, min, slope, thresholded, fused_conv,
            fused_gemm, nchwc_conv; or the jump that the model had itself: jump_where, jump_mask, jump_relu_where,
            jump_relu_mask.
        dtype: NumPy name of the element type.
        scope: Scope path, "" for the main graph.
        output: Name of the site's output tensor, which the rewrite keeps.
        kappa: The kappa the node compares with, rounded to the dtype, or one for each channel; the default where it is
            a runtime input.
        cap: Upper bound of ReLU6 and similar activations.
        lowering: where, cast_mul, log_step, thresholded or custom.
        nodes: How many nodes replace the original.
        original: The original NodeProto, serialised, base64.
        rank: Rank of the site's tensor (N, C, ...) where kappa is one for each channel, else None.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.site/1"
    id: str
    form: str
    dtype: str
    scope: str
    output: str
    kappa: SiteKappa
    cap: float | None
    lowering: str
    nodes: int
    original: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class ExternalFile(Record):
    """A file of external data: recorded by what the model refers to, hashed only on request."""

    SCHEMA: ClassVar[str] = "jr_onnx.external_file/1"
    location: str
    length_bytes: int
    tensors: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Undo(Record):
    """What `restore` has to put back besides the sites.

    Attributes:
        ir_version: The source's IR version.
        opset_import: The source's opset imports, serialised OperatorSetIdProto, base64, in order.
        function_opset_import: Function key -> the same for a function whose imports changed.
        functions_added: Keys (domain, name, overload joined by "::") of functions this rewrite added.
        inputs_removed: Index in the source and serialised ValueInfoProto of graph inputs that were initializers.
        initializers_added: Names of top-level initializers this rewrite added.
        inputs_added: Names of graph inputs this rewrite added.
        nodes_prepended: How many nodes were put in front of the main graph's.
        calls: Scope path, index in the source and serialised NodeProto of calls that were changed.
        has_ir_version: Whether the source names its IR version at all.
        nodes_removed: Scope path, index in the source and serialised NodeProto of nodes that nothing read any more.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.undo/1"
    ir_version: int
    opset_import: tuple[str, ...]
    function_opset_import: dict[str, tuple[str, ...]] = field(default_factory=dict)
    functions_added: tuple[str, ...] = ()
    inputs_removed: tuple[tuple[int, str], ...] = ()
    initializers_added: tuple[str, ...] = ()
    inputs_added: tuple[str, ...] = ()
    nodes_prepended: int = 0
    calls: tuple[tuple[str, int, str], ...] = ()
    has_ir_version: bool = True
    nodes_removed: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance(Record):
    """The whole entry.

    Attributes:
        version: Version of this package that wrote it.
        source_name: File name of the source model, without its folder; "" for a model in memory.
        source_sha256: Digest of the source model file (without external data), or of the serialised proto.
        plan: The kappa plan as asked for.
        target: portable, cpu or cuda.
        sites: The rewritten sites, in graph order.
        undo: What else `restore` puts back.
        converted_from_opset: Opset of the file before `--opset`, None without a conversion.
        external_data: The files the model refers to.
        created: Time in UTC, ISO 8601, or None (the default: the same input gives the same bytes).
    """

    SCHEMA: ClassVar[str] = "jr_onnx.provenance/1"
    version: str
    source_name: str
    source_sha256: str
    plan: KappaPlan
    target: str
    sites: tuple[SiteRecord, ...]
    undo: Undo
    converted_from_opset: int | None = None
    external_data: tuple[ExternalFile, ...] = ()
    created: str | None = None


def read(model: ModelProto) -> Provenance | None:
    """Return the provenance of a retrofitted ModelProto, None for a model that is not a retrofit.

    Of a retrofit that was quantised after the rewrite it is brought up to date; see `quantised`.

    Raises:
        ModelError: The entry is there but cannot be understood.
    """
    entries = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not entries:
        return None
    if len(entries) > 1:
        raise ModelError(f"the model's metadata holds {METADATA_KEY} {len(entries)} times, expected once")
    try:
        record = loads(Provenance, entries[0])
    except InputError as error:
        raise ModelError(
            f"the model's metadata entry {METADATA_KEY} cannot be understood: {error.message}",
            hint="It was written by another version or edited; rewrite the original model again",
        ) from None
    return brought_up_to_date(model, record)


def write(model: ModelProto, provenance: Provenance) -> None:
    """Append the provenance to the model's metadata."""
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = dumps(provenance, indent=None)


def remove(model: ModelProto) -> None:
    """Take the provenance out of the model's metadata."""
    for index in reversed(range(len(model.metadata_props))):
        if model.metadata_props[index].key == METADATA_KEY:
            del model.metadata_props[index]


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read in pieces.

    Raises:
        ModelError: The file cannot be read.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):  # a pipe may never end
                raise ModelError(f"{path} is not a regular file")
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
