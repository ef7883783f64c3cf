"""Read a model for a session: the graph as a small proto, the weights as views, handed to ONNX Runtime as they lie.

A session needs the graph to edit it, and ONNX Runtime needs the weights; neither needs the weights parsed. The
large payloads of the model file are given to ONNX Runtime as *files in memory* that the edited proto refers to, so that
they are copied once, by ONNX Runtime, into the tensors that it computes with. External data stays in its files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from jr_onnx.errors import ModelError
from jr_onnx.modelfile import external_tensors, require_text
from jr_onnx.modelfile.wire import Buffer, Payload, Payloads, WireError, join, split
from jr_onnx.opened import FileView, OpenedFile, pieces
from jr_onnx.rewriter.scopes import all_nodes, function_key
from jr_onnx.runtime.nhwc import NHWC
from jr_onnx.runtime.running import SessionOptions
from jr_onnx.semantics import OP_DOMAIN

FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_SOURCE = "jr_onnx.source."
_ORT_DOMAINS = ("", "ai.onnx", "com.microsoft", "org.pytorch.aten", NHWC, OP_DOMAIN)
_ORT_PREFIXES = ("ai.onnx.", "com.microsoft.")


@dataclass
class Skeleton:
    """A model without its weights.

    Attributes:
        proto: The model; payloads are tokens. The caller may edit it.
        payloads: What the tokens stand for.
        folder: What external data is relative to; None for a model in memory of which nothing tells.
    """

    proto: onnx.ModelProto
    payloads: Payloads
    folder: Path | None


@dataclass
class Feed:
    """A model as ONNX Runtime takes it: the serialised proto and the files in memory that it refers to."""

    data: bytes
    files: dict[str, Buffer] = field(default_factory=dict)
    folder: Path | None = None

    def prepare(self, options: SessionOptions) -> None:
        """Tell session options where the weights are."""
        if self.files:
            options.add_external_initializers_from_files_in_memory(
                list(self.files), list(self.files.values()), [len(view) for view in self.files.values()]
            )
        if self.folder is not None and not has_entry(options, FOLDER_KEY):
            options.add_session_config_entry(FOLDER_KEY, str(self.folder))


def read_skeleton(
    path_or_bytes: str | bytes | os.PathLike[str], options: SessionOptions | None = None
) -> Skeleton | None:
    """Read a model; None if it is not a readable ONNX model: ONNX Runtime reports that.

    Args:
        path_or_bytes: The file, or its contents.
        options: Session options, which may name the folder of the external data of a model in memory.
    """
    folder: Path | None = None
    view: Payload
    try:
        if isinstance(path_or_bytes, bytes):
            view = memoryview(path_or_bytes)
            if options is not None and has_entry(options, FOLDER_KEY):
                folder = Path(options.get_session_config_entry(FOLDER_KEY))
        else:
            path = Path(path_or_bytes)
            folder = path.parent
            view = OpenedFile(path).view()
        data, payloads = split(view)
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
        require_text(proto)
    except (OSError, ValueError, WireError, DecodeError, RecursionError, ModelError):
        return None
    return Skeleton(proto, payloads, folder) if proto.HasField("graph") else None


def add_external_files(options: SessionOptions, files: Mapping[str, Buffer]) -> None:
    """Give session options the contents of external data, so that nothing of it is read from a disk."""
    if files:
        Feed(b"", dict(files)).prepare(options)


def feed_of(skeleton: Skeleton) -> Feed:
    """Return the model for ONNX Runtime; the skeleton's proto is used up."""
    # ONNX Runtime takes external data from memory or from the disk, not from both in one model.
    files: dict[str, Buffer] = {}
    if can_take_files() and not external_tensors(skeleton.proto):
        for tensor in skeleton.proto.graph.initializer:
            payload = _take_payload(tensor, skeleton.payloads)
            if payload is not None:
                # One file a tensor: the payloads lie at any offset of the source, and views need no common base.
                name = f"{_SOURCE}{len(files)}"
                files[name] = payload.tobytes() if isinstance(payload, FileView) else payload
                refer(tensor, name, 0, len(payload))
    # Weights in attributes and sub-graphs cannot be given as files; they go back where they were.
    chunks = join(skeleton.proto.SerializeToString(), skeleton.payloads)
    data = b"".join(part for chunk in chunks for part in pieces(chunk))
    skeleton.payloads.require_unchanged()
    return Feed(data, files, skeleton.folder)


def foreign_domain(model: onnx.ModelProto) -> str | None:
    """Return a domain whose operators ONNX Runtime only knows from custom operators of the caller's, None without."""
    functions = {function_key(function) for function in model.functions}
    for node in all_nodes(model):
        domain = str(node.domain)
        if domain in _ORT_DOMAINS or domain.startswith(_ORT_PREFIXES) or function_key(node) in functions:
            continue
        return domain
    return None


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor's data external."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def can_take_files() -> bool:
    """Tell whether this ONNX Runtime takes external data from memory (1.24 and later)."""
    import onnxruntime

    return hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory")


def has_entry(options: SessionOptions, key: str) -> bool:
    """Tell whether session options hold a configuration entry."""
    try:
        options.get_session_config_entry(key)
    except Exception:  # noqa: BLE001 - ONNX Runtime raises RuntimeError or its own Fail, by version
        return False
    return True


def _take_payload(tensor: onnx.TensorProto, payloads: Payloads) -> Payload | None:
    """Take a tensor's payload out, None where it has no token in `raw_data`."""
    if not tensor.HasField("raw_data"):
        return None
    payload = payloads.get(tensor.raw_data)
    if payload is not None:
        tensor.ClearField("raw_data")
    return payload
