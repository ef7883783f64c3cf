"""External data: found by walking the proto, never read into memory, placed where the output will look for it.

A tensor's `location` is relative to the model's folder. Locations that are absolute, climb out of the folder or pass
through a symbolic link out of it are refused: a model file must not name any file of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import onnx

from jr_onnx.errors import ModelError, OutputError
from jr_onnx.foreign import head_of, pointer
from jr_onnx.modelfile.save import atomic_path
from jr_onnx.modelfile.wire import THRESHOLD, Payloads
from jr_onnx.opened import FileView, OpenedFile
from jr_onnx.provenance import ExternalFile, sha256_file

ExternalMode = Literal["auto", "copy", "hardlink", "reference"]
_FICLONE = 0x40049409  # linux/fs.h: share extents with another file


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose data is stored in a file next to the model."""

    name: str
    location: str
    offset: int
    length: int | None


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every TensorProto of a model: initializers, attributes, sub-graphs, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = list(attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor"):
                sparse_tensors.append(attribute.sparse_tensor)
            for sparse in sparse_tensors:
                yield sparse.values
                yield sparse.indices
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def external_tensors(model: onnx.ModelProto) -> list[ExternalTensor]:
    """List the tensors with external data.

    Raises:
        ModelError: An entry lacks its location or holds an invalid number.
    """
    return [external_place(item) for item in tensors(model) if item.data_location == onnx.TensorProto.EXTERNAL]


def external_place(tensor: onnx.TensorProto) -> ExternalTensor:
    """Return where the external data of a tensor is stored.

    Raises:
        ModelError: The location is missing, or a number is invalid.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise ModelError(f"tensor {tensor.name!r} has external data without a location")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError:
        raise ModelError(f"tensor {tensor.name!r} has an external offset or length that is not a number") from None
    if offset < 0 or (length is not None and length < 0):
        raise ModelError(f"tensor {tensor.name!r} has a negative external offset or length")
    return ExternalTensor(tensor.name, location, offset, length)


def check(model: onnx.ModelProto, folder: Path, *, hash_data: bool = False) -> tuple[ExternalFile, ...]:
    """Check that all external data is there and inside the folder, and describe the files.

    Raises:
        ModelError: A file is missing, too short, or lies outside the model's folder.
    """
    by_location: dict[str, list[ExternalTensor]] = {}
    for tensor in external_tensors(model):
        by_location.setdefault(tensor.location, []).append(tensor)
    files = []
    for location, group in sorted(by_location.items()):
        path = external_file(folder, location, group[0].name)
        size = path.stat().st_size
        found = pointer(head_of(path))
        if found is not None:
            raise ModelError(f"the external data {location!r} of tensor {group[0].name!r} is {found[0]}", hint=found[1])
        for tensor in group:
            end = tensor.offset + (tensor.length or 0)
            if end > size:
                raise _cut_off(tensor.name, end, location, size)
        digest = sha256_file(path) if hash_data else None
        files.append(ExternalFile(location, size, len(group), digest))
    return tuple(files)


def absorb(
    model: onnx.ModelProto, contents: Mapping[str, memoryview | FileView], payloads: Payloads | None = None
) -> None:
    """Put external data where data inside the file would be.

    Args:
        model: Edited in place.
        contents: The files by location; tensors in others stay as they are.
        payloads: Gets the data of large tensors, which then hold tokens; None to put all data into the tensors.

    Raises:
        ModelError: A tensor reaches beyond its file.
    """
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = external_place(tensor)
        if place.location not in contents:
            continue
        whole = contents[place.location]
        end = len(whole) if place.length is None else place.offset + place.length
        if end > len(whole) or place.offset > end:
            raise _cut_off(tensor.name, end, place.location, len(whole))
        data = whole[place.offset : end]
        tensor.ClearField("data_location")
        del tensor.external_data[:]
        tensor.raw_data = data.tobytes() if payloads is None or len(data) < THRESHOLD else payloads.put(data)


def _cut_off(name: str, end: int, location: str, size: int) -> ModelError:
    return ModelError(
        f"tensor {name!r} ends at byte {end} of {location!r}, which has only {size} bytes",
        hint="The external data is cut off; copy or export it again",
    )


def external_file(folder: Path, location: str, tensor: str = "") -> Path:
    """Return the regular file that a location means; `tensor` is for the message.

    Raises:
        ModelError: See `resolve`; or there is no such file.
    """
    path = resolve(folder, location)
    if not path.is_file():
        found = "is not a regular file" if path.exists() else f"is not in {folder}"
        raise ModelError(
            f"the external data {location!r}{f' of tensor {tensor!r}' if tensor else ''} {found}",
            hint="Put the file beside the model, or export the model again",
        )
    return path


def resolve(folder: Path, location: str) -> Path:
    """Return the path of a location, refusing one that leaves the folder.

    Raises:
        ModelError: The location is absolute or leaves the folder, directly or through a symbolic link.
    """
    pure = PurePosixPath(location)
    if not location or pure.is_absolute() or ".." in pure.parts or "\\" in location or "\0" in location:
        raise ModelError(
            f"the external data {location!r} leaves the model's folder, which is refused",
            hint="Move the data beside the model and save it with a relative location",
        )
    path = folder / location
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise ModelError(f"the external data {location!r} cannot be followed: {error}") from None
    if not inside:
        raise ModelError(
            f"the external data {location!r} is a link out of the model's folder, which is refused",
            hint="Put the data itself beside the model",
        )
    return path


def place_external_data(
    files: tuple[ExternalFile, ...], source: Path, output: Path, mode: ExternalMode, *, force: bool
) -> str:
    """Place external files in the output's folder and return how: "none", "reference", "reflink", "copy" or "hardlink".

    In the source's own folder the output refers to the same files, for the model would otherwise need other locations.

    Args:
        files: What `check` found.
        source: Folder of the source model.
        output: Path of the model that will be written.
        mode: How to place them in another folder.
        force: Replace files that are in the way.

    Raises:
        OutputError: The output would replace the data, a different file is in the way, `reference` was asked for
            across folders, or writing fails.
    """
    target = output.parent
    if not files:
        return "none"
    for item in files:
        if any(_same(output, folder / item.location) for folder in (source, target)):
            raise OutputError(
                f"the output {output} is where the model's external data {item.location!r} lies or will lie",
                hint="Choose another output (-o)",
            )
    if source.resolve() == target.resolve():
        return "reference"
    if mode == "reference":
        raise OutputError(
            f"the output lies in {target}, so it cannot refer to external data in {source}",
            hint="Write beside the source, or use --external-data copy",
        )
    how = "hardlink" if mode == "hardlink" else "reflink"
    for item in files:
        origin, destination = resolve(source, item.location), target / item.location
        if destination.exists():
            if origin.samefile(destination):
                continue
            if not force:
                raise OutputError(f"{destination} exists", hint="Use --force to replace it, or choose another folder")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {destination.parent} for external data: {error.strerror}"
            ) from None
        used = _place(origin, destination, mode)
        how = used if used != "reflink" else how
    return how


def _place(origin: Path, destination: Path, mode: ExternalMode) -> str:
    with atomic_path(destination) as temporary:
        if mode == "hardlink":
            temporary.unlink()
            try:
                os.link(origin.resolve(), temporary)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                raise OutputError(
                    f"{destination} lies on another file system than {origin}, so a hard link is impossible",
                    hint="Use --external-data copy",
                ) from None
            return "hardlink"
        opened = OpenedFile(origin, "external data")
        used = "reflink" if _reflink(opened, temporary) else "copy"
        if used == "copy":
            _copy(opened, temporary)
        opened.require_unchanged()
        with temporary.open("rb") as stream:  # on the disk before its name is: a crash leaves no empty file
            os.fsync(stream.fileno())
        return used


def _reflink(origin: OpenedFile, destination: Path) -> bool:
    with destination.open("wb") as target, contextlib.suppress(OSError):
        fcntl.ioctl(target.fileno(), _FICLONE, origin.fileno())
        return True
    return False


def _copy(origin: OpenedFile, destination: Path) -> None:
    with destination.open("wb") as target:
        origin.copy_to(target, 0, origin.size)


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
