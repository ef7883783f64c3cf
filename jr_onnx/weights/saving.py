"""Write a model file again with other values in its weights, and prove that nothing else differs.

    file A, {weight: values}  ->  file B: the bytes of those tensors are new, everything else is A's

Tokens take the place of large tensors, as in every edit (`modelfile.wire`): the payload of a trained tensor is
exchanged, all others are copied from the file that was read. External data is placed with the output; a file of it that
holds a trained tensor is copied, and the tensor's bytes are written into the copy. What was written is then read again,
and compared with the source field by field before it appears under its name.

Next to the source, a changed file of external data needs a name of its own (`<output>.<location>`), and the tensors in
it refer to that. The provenance of the training is one more entry of the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, ModelError, OutputError
from jr_onnx.modelfile import (
    ModelFile,
    atomic_path,
    check,
    copied,
    external_place,
    load,
    place_external_data,
    readable,
    resolve,
    tensors,
    write_chunks,
)
from jr_onnx.modelfile.wire import Payloads, join
from jr_onnx.opened import OpenedFile
from jr_onnx.rewriter.api import output_path
from jr_onnx.weights.find import Weight, find_weights, tensors_by_place
from jr_onnx.weights.proof import Allowed, bytes_of, prove, stored

_SHOWN = 3


class Trained(Protocol):
    """A module that knows its weights, as `jr_onnx.torchnet.load(..., trainable=True)` gives it."""

    def weights(self) -> Mapping[str, Array]:
        """Return weight name -> values."""


def save_weights(
    source: str | Path,
    weights: Mapping[str, Array] | Trained,
    output: str | Path,
    *,
    force: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a model file with other values in some of its weights, and nothing else changed.

    Args:
        source: The model file.
        weights: Weight name (`find_weights`) -> values of the weight's shape, or a trainable module. Values are rounded
            to the weight's own type, to nearest, ties to even.
        output: Where to write; files of external data are placed in its folder.
        force: Replace an existing output.
        metadata: Entries of the model's metadata to set.

    Returns:
        The written path.

    Raises:
        ModelError: The source is not a usable model, or lacks its external data.
        InputError: There is no weight of a name, or values have another shape, are not finite, or do not fit the type.
        OutputError: The output is the source, exists without `force`, or cannot be written.
        ContractError: What was written differs from the source elsewhere; nothing is left behind.
    """
    file = load(source)
    path = output_path(file, output, force=force)
    values = _values(weights)
    with readable(str(source)):
        edit = _Edit.of(file, values)
        _write(file, edit, path, dict(metadata or {}), force=force)
    return path


def _values(weights: Mapping[str, Array] | Trained) -> Mapping[str, Array]:
    """Return weight name -> values.

    Raises:
        InputError: It is neither a mapping nor a trainable module.
    """
    if isinstance(weights, Mapping):
        return weights
    own = getattr(weights, "weights", None)
    found = own() if callable(own) else None
    if not isinstance(found, Mapping) or not found:
        what = "has no trainable weights" if found == {} else "is no module of a model"
        raise InputError(
            f"the given {type(weights).__name__} {what}, expected weight names with values, or a trainable module",
            hint="In Python, jr_onnx.torchnet.load(..., trainable=True) gives one",
        )
    return found


@dataclass(frozen=True)
class _Edit:
    """The new bytes of every trained tensor, by its place in the model."""

    bytes_by_place: dict[tuple[str, str], bytes]

    @classmethod
    def of(cls, file: ModelFile, values: Mapping[str, Array]) -> _Edit:
        """Check values against the weights of a model.

        Raises:
            InputError: They do not fit.
        """
        known = {weight.name: weight for weight in find_weights(file.proto)}
        unknown = [name for name in values if name not in known]
        if unknown:
            shown = ", ".join(list(known)[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
            raise InputError(
                f"the model has no weight {unknown[0]!r}, it has {shown or 'none'}",
                hint="jr_onnx.find_weights lists them; a module can be given itself",
            )
        found = {name: _rounded(known[name], array) for name, array in values.items()}
        for weight in known.values():  # what is stored in the same bytes of a file is the same weight
            pair = {weight.name, weight.same_as} & set(found)
            if not weight.same_as or not pair:
                continue
            given = {found[name] for name in pair}
            found[weight.name] = found[weight.same_as] = next(iter(given))
            if len(given) > 1:
                raise InputError(
                    f"the weights {weight.name!r} and {weight.same_as!r} lie in the same bytes of a file, and are "
                    "given different values",
                    hint=f"Give {weight.same_as!r} alone",
                )
        return cls({(known[name].scope, known[name].tensor): data for name, data in found.items()})


def _rounded(weight: Weight, array: Array) -> bytes:
    """Return the bytes of a weight's values in its own type, little endian."""
    if hasattr(array, "detach"):  # a tensor of torch, which gives no array while it asks for gradients or is on a GPU
        array = array.detach().cpu()
    values = np.asarray(array)
    if values.shape != weight.shape:
        raise InputError(
            f"the values of {weight.name!r} have the shape {list(values.shape)}, expected {list(weight.shape)}"
        )
    if values.dtype.kind != "f":
        raise InputError(f"the values of {weight.name!r} have the type {values.dtype}, expected floats")
    if not np.isfinite(values).all():
        raise InputError(f"the values of {weight.name!r} are not all finite numbers", hint="The training has diverged")
    with np.errstate(over="ignore"):
        if weight.dtype == "bfloat16":
            rounded, finite = _bfloat16(values.astype("<f4"))
        else:
            rounded = values.astype(np.dtype(weight.dtype).newbyteorder("<"))
            finite = bool(np.isfinite(rounded).all())
    if not finite:
        raise InputError(
            f"a value of {weight.name!r} is {float(np.abs(values).max()):g}, more than {weight.dtype} can hold",
            hint="Train with weight decay, or train the float32 model",
        )
    return np.ascontiguousarray(rounded).tobytes()


def _bfloat16(values: npt.NDArray[np.float32]) -> tuple[Array, bool]:
    """Round to bfloat16, to nearest, ties to even: the upper half of a float32; also tell whether all are finite."""
    bits = values.view("<u4").astype(np.uint64)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return upper.astype("<u2"), bool(((upper & 0x7F80) != 0x7F80).all())


def _write(file: ModelFile, edit: _Edit, path: Path, metadata: dict[str, str], *, force: bool) -> None:
    folder = file.path.parent if file.path is not None else path.parent
    model = copied(file.proto)
    payloads = Payloads(file.payloads.nonce, list(file.payloads.views))
    places = tensors_by_place(model)
    outside: dict[str, list[tuple[int, bytes]]] = {}
    for place, data in edit.bytes_by_place.items():
        tensor = places[place]
        if tensor.data_location == TensorProto.EXTERNAL:
            spot = external_place(tensor)
            if spot.length is not None and spot.length != len(data):
                raise ModelError(f"tensor {tensor.name!r} has {spot.length} external bytes, expected {len(data)}")
            outside.setdefault(spot.location, []).append((spot.offset, data))
        else:
            _put(tensor, data, payloads)
    _refuse_overlaps(model, edit, places)
    renamed = _external(model, file, outside, path, folder, force=force)
    for key, value in metadata.items():
        _set_metadata(model, key, value)
    try:
        with atomic_path(path) as temporary:
            write_chunks(temporary, join(model.SerializeToString(deterministic=True), payloads))
            payloads.require_unchanged()
            allowed = Allowed(edit.bytes_by_place, renamed, frozenset(metadata))
            prove(file, load(temporary, named=path), allowed, path.parent)
    except BaseException:
        for location in renamed.values():
            (path.parent / location).unlink(missing_ok=True)
        raise


def _put(tensor: TensorProto, data: bytes, payloads: Payloads) -> None:
    """Exchange the data of a tensor, in the field in which they are."""
    token = payloads.index(stored(tensor))
    if token is not None:
        payloads.views[token] = data
    elif tensor.HasField("raw_data"):
        tensor.raw_data = data
    elif tensor.data_type == TensorProto.FLOAT:
        tensor.float_data[:] = np.frombuffer(data, "<f4").tolist()
    elif tensor.data_type == TensorProto.DOUBLE:
        tensor.double_data[:] = np.frombuffer(data, "<f8").tolist()
    else:  # float16 and bfloat16 are stored as bit patterns (onnx.proto)
        tensor.int32_data[:] = np.frombuffer(data, "<u2").tolist()


@dataclass(frozen=True, slots=True)
class _Span:
    """The bytes of a file that a tensor reads.

    Attributes:
        start: The first.
        end: The first behind them.
        name: Name of the tensor.
        data: What is written there; None for a tensor that was not trained.
    """

    start: int
    end: int
    name: str
    data: bytes | None


def _refuse_overlaps(model: onnx.ModelProto, edit: _Edit, places: Mapping[tuple[str, str], TensorProto]) -> None:
    """Refuse to write into external bytes that another tensor reads too, unless both are to hold the same there."""
    kept = list(tensors(model))  # keeps Python's objects alive, so that id() tells tensors apart
    trained = {id(places[place]): data for place, data in edit.bytes_by_place.items()}
    spans: dict[str, list[_Span]] = {}
    for tensor in kept:
        if tensor.data_location == TensorProto.EXTERNAL:
            spot = external_place(tensor)
            end = spot.offset + (spot.length if spot.length is not None else bytes_of(tensor))
            spans.setdefault(spot.location, []).append(
                _Span(spot.offset, end, str(tensor.name), trained.get(id(tensor)))
            )
    for group in spans.values():
        written: list[_Span] = []
        read: list[_Span] = []
        for span in sorted(group, key=lambda item: (item.start, item.end)):
            written = [item for item in written if item.end > span.start]
            read = [item for item in read if item.end > span.start]
            for other in written if span.data is None else [*written, *read]:
                if (other.start, other.end, other.data) != (span.start, span.end, span.data):
                    raise ModelError(
                        f"the tensors {other.name!r} and {span.name!r} share bytes of a file, and training changes "
                        "one of them, or both to different values",
                        hint="Save the model with a place for each tensor (onnx.save with external data), and train "
                        "that",
                    )
            (read if span.data is None else written).append(span)


def _external(
    model: onnx.ModelProto,
    file: ModelFile,
    outside: Mapping[str, list[tuple[int, bytes]]],
    path: Path,
    folder: Path,
    *,
    force: bool,
) -> dict[str, str]:
    """Place external data with the output; return old -> new location of the files that hold trained tensors."""
    files = check(file.proto, folder)
    place_external_data(
        tuple(item for item in files if item.location not in outside), folder, path, "auto", force=force
    )
    beside = folder.resolve() == path.parent.resolve()
    renamed = {location: f"{path.name}.{Path(location).name}" if beside else location for location in outside}
    if len(set(renamed.values())) < len(renamed):
        renamed = {location: f"{path.name}.{number}.data" for number, location in enumerate(outside)}
    for location in renamed.values():  # all of them before the first is written
        target = path.parent / location
        if target.exists() and not force:
            raise OutputError(f"{target} exists", hint="Use --force to replace it, or choose another folder")
    for location, patches in outside.items():
        target = path.parent / renamed[location]
        target.parent.mkdir(parents=True, exist_ok=True)
        _patched(OpenedFile(resolve(folder, location), "external data"), target, patches)
    for tensor in tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value in renamed:
                entry.value = renamed[entry.value]
    return renamed


def _patched(origin: OpenedFile, target: Path, patches: list[tuple[int, bytes]]) -> None:
    with atomic_path(target) as temporary:
        position = 0
        with temporary.open("wb") as stream:
            for offset, data in sorted(dict(patches).items()):
                origin.copy_to(stream, position, offset - position)
                stream.write(data)
                position = offset + len(data)
            origin.copy_to(stream, position, origin.size - position)
        origin.require_unchanged()


def _set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    model.metadata_props.add(key=key, value=value)
