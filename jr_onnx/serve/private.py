"""Copy a model that is to be served into private memory, once, and check the copy.

Anyone with write access to a model's folder can truncate a file, put a pipe or a link in its place, or swap it between
the check of its manifest and its use. So every file is opened once and copied; the digests of the manifest are compared
with the copy; and the copy is what is served. While it loads, a model takes memory for its weights twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jr_onnx.errors import IntegrityError, ModelError
from jr_onnx.modelfile import ModelFile, absorb, external_file, external_tensors
from jr_onnx.modelfile.load import parse
from jr_onnx.opened import OpenedFile

_MOST_BYTES = 2**31 - 1  # protobuf, and so ONNX Runtime, reads no larger file


@dataclass(frozen=True)
class PrivateModel:
    """A model in memory.

    Attributes:
        path: Where it was read from.
        data: The model file.
        external: Its external data by location.
        file: The model without its large weights, external data absorbed.
    """

    path: Path
    data: bytes
    external: dict[str, memoryview]
    file: ModelFile


def read_privately(path: Path, digests: Mapping[str, str] | None = None) -> PrivateModel:
    """Read a model and its external data.

    Args:
        path: The model file, links resolved when the server started.
        digests: SHA-256 by path relative to the model's folder, of a packaged model; None for a file alone.

    Raises:
        ModelError: A file is missing, no regular file, became a link, is cut off, or is not an ONNX model.
        IntegrityError: A file is not the one that the manifest names.
    """
    _require_same_place(path)
    opened = OpenedFile(path, follow=False)
    if opened.size > _MOST_BYTES:
        raise ModelError(f"{path} has {opened.size} bytes, more than the 2 GB that ONNX Runtime reads")
    data = opened.read(0, opened.size)
    _check_digest(memoryview(data), path, path.name, digests)
    file = parse(memoryview(data), path, path)
    external = {}
    for location in sorted({tensor.location for tensor in external_tensors(file.proto)}):
        place = external_file(path.parent, location).resolve()
        if digests is not None:
            _require_same_place(path.parent / location)
        external[location] = OpenedFile(place, "external data", follow=False).read_private()
        _check_digest(external[location], place, location, digests)
    absorb(file.proto, external, file.payloads)
    return PrivateModel(path, data, external, file)


def _require_same_place(path: Path) -> None:
    """Refuse a path that leads elsewhere than at the start; `verify-package` refuses links too.

    Raises:
        ModelError: There is a link in it.
    """
    if path.resolve() != path.absolute():
        raise ModelError(
            f"{path} is reached through a symbolic link, which is refused", hint="Put the file itself there"
        )


def _check_digest(data: memoryview, path: Path, name: str, digests: Mapping[str, str] | None) -> None:
    if digests is None:
        return
    if name not in digests:
        raise IntegrityError(f"{path} is in no manifest")
    if hashlib.sha256(data).hexdigest() != digests[name]:
        raise IntegrityError(f"{path} does not match its manifest: it was changed since it was verified")
