"""Read a model file into a small ModelProto and untouched payloads, with a clear error for every bad file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from jr_onnx.errors import ModelError
from jr_onnx.foreign import HEAD_BYTES, recognise
from jr_onnx.modelfile.guard import readable
from jr_onnx.modelfile.messages import copied
from jr_onnx.modelfile.omitted import require_inputs
from jr_onnx.modelfile.text import require_text
from jr_onnx.modelfile.wire import Payloads, WireError, split
from jr_onnx.opened import FileView, OpenedFile, pieces


@dataclass
class ModelFile:
    """A model as this package edits it.

    Attributes:
        path: Where it was read from; None for a model that came as a proto.
        proto: The model; payloads larger than `wire.THRESHOLD` are 16-byte tokens when read from a file.
        payloads: What the tokens stand for.
        sha256: Digest of the file, or of the serialised proto.
        length_bytes: Size of the file or of the serialised proto.
    """

    path: Path | None
    proto: onnx.ModelProto
    payloads: Payloads
    sha256: str
    length_bytes: int

    @property
    def folder(self) -> Path | None:
        """The folder that external data is relative to."""
        return self.path.parent if self.path is not None else None

    @property
    def name(self) -> str:
        r"""File name without its folder, for messages and provenance; bytes that are not text are \udcXX in it."""
        return self.path.name.encode("utf-8", "backslashreplace").decode() if self.path is not None else ""


def load(path: str | Path, *, named: Path | None = None) -> ModelFile:
    """Read a model file; external data is not loaded.

    Args:
        path: The file.
        named: What messages call it, where it is a copy.

    Raises:
        ModelError: The file is missing, unreadable, a directory, empty, cut off or no ONNX model.
    """
    path = Path(path)
    shown = named or path
    file = OpenedFile(path, named=named)
    found = parse(file.view(), path, shown)
    file.require_unchanged()
    return found


def parse(view: memoryview | FileView, path: Path, shown: Path) -> ModelFile:
    """Read a model from the bytes of its file.

    Args:
        view: The bytes.
        path: Where they were read from.
        shown: What messages call it.

    Raises:
        ModelError: They are empty, cut off or no ONNX model.
    """
    if not len(view):
        raise ModelError(f"{shown} is empty (0 bytes), expected an ONNX model")
    digest = hashlib.sha256()
    for part in pieces(view):
        digest.update(part)
    proto = onnx.ModelProto()
    try:
        with readable(str(shown)):
            skeleton, payloads = split(view)
        proto.ParseFromString(skeleton)
    except (WireError, DecodeError) as error:
        reason = str(error) if isinstance(error, WireError) else "it does not parse as a ModelProto"
        _refuse_foreign(shown, view)
        raise ModelError(
            f"{shown} is not an ONNX model, or is cut off ({reason})",
            hint="Expected a serialised ModelProto (.onnx); export the model again or copy it in binary mode",
        ) from None
    if not proto.HasField("graph"):
        _refuse_foreign(shown, view)
    _plausible(proto, shown)
    with readable(str(shown)):
        require_text(proto)
        require_inputs(proto)
    return ModelFile(path, proto, payloads, digest.hexdigest(), len(view))


def name_of(path: Path) -> str:
    """Return the file name of a model's path.

    Raises:
        ModelError: It has none: it is empty, "." or the root.
    """
    if not path.name:
        raise ModelError(f"the path {str(path)!r} names no file, expected an ONNX model file")
    return path.name


def from_proto(proto: onnx.ModelProto) -> ModelFile:
    """Wrap a copy of a model in memory; its payloads stay in the copy."""
    copy = copied(proto)
    with readable("the model"):
        require_text(copy)
        require_inputs(copy)
        data = copy.SerializeToString(deterministic=True)
    return ModelFile(None, copy, Payloads(), hashlib.sha256(data).hexdigest(), len(data))


def _refuse_foreign(path: Path, view: memoryview | FileView) -> None:
    """Say what kind of file it is, where a common mistake is recognised."""
    found = recognise(view[:HEAD_BYTES].tobytes())
    if found is not None:
        raise ModelError(f"{path} is {found[0]}, expected an ONNX model", hint=found[1])


def _plausible(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse what parses by chance: protobuf accepts many byte strings as a message of unknown fields."""
    if not proto.HasField("graph"):
        raise ModelError(
            f"{path} holds no graph, so it is not an ONNX model",
            hint="Expected a serialised ModelProto (.onnx)",
        )
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(f"{path} holds a graph without nodes and outputs, so there is nothing to do")
