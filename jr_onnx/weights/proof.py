"""Prove that a model file is another one with new values in some tensors, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from jr_onnx.errors import ContractError
from jr_onnx.modelfile import ModelFile, copied, external_place, resolve, tensors
from jr_onnx.modelfile.wire import TOKEN_BYTES, Payload
from jr_onnx.opened import OpenedFile, pieces
from jr_onnx.rewriter.differences import differences
from jr_onnx.weights.find import tensors_by_place

_SHOWN = 3
_PIECE_BYTES = 1 << 20
_FIELDS = ("raw_data", "float_data", "double_data", "int32_data")


@dataclass(frozen=True)
class Allowed:
    """What may differ between two model files.

    Attributes:
        trained: (scope path, name) of the tensors that may differ -> the bytes they must have.
        renamed: Old -> new location of external data.
        metadata: Keys of the metadata.
    """

    trained: Mapping[tuple[str, str], bytes]
    renamed: Mapping[str, str] = field(default_factory=dict)
    metadata: frozenset[str] = frozenset()


def prove(source: ModelFile, result: ModelFile, allowed: Allowed, folder: Path) -> None:
    """Compare two model files field by field, and their large tensors byte by byte.

    Files of external data without a trained tensor are not read: they were copied or linked whole.

    Args:
        source: The file before.
        result: The file after.
        allowed: What may differ.
        folder: The folder of the result's external data.

    Raises:
        ContractError: Something else differs, or a tensor does not hold what it should.
    """
    before, old = _opened(source, allowed)
    after, new = _opened(result, allowed)
    trained = _check_trained(before, after, new, allowed, folder)
    for tensor in tensors(before):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = allowed.renamed.get(entry.value, entry.value)
    _check_external(source, allowed, folder)
    if before.SerializeToString(deterministic=True) != after.SerializeToString(deterministic=True):
        moved = "; ".join(differences(before, after)[:_SHOWN])
        raise ContractError(f"writing the weights moved more than the weights: {moved or 'bytes differ'}")
    for number, tensor in enumerate(tensors(before)):
        if number not in trained and number in old and not _same(old[number], new[number]):
            raise ContractError(f"writing the weights changed the tensor {tensor.name!r}, which was not trained")


def stored(tensor: TensorProto) -> bytes:
    """Return the bytes in the place where a large tensor has its token; the first ones of another tensor's data."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data[: TOKEN_BYTES + 1])
    if tensor.float_data:
        return np.asarray(tensor.float_data[: TOKEN_BYTES // 4 + 1], "<f4").tobytes()
    return np.asarray(tensor.double_data[: TOKEN_BYTES // 8 + 1], "<f8").tobytes()


def bytes_of(tensor: TensorProto) -> int:
    """Return how many bytes the elements of a tensor take."""
    count: int = math.prod(tensor.dims)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _opened(file: ModelFile, allowed: Allowed) -> tuple[onnx.ModelProto, dict[int, Payload]]:
    """Return a copy of a model without tokens, and number of the tensor -> what its token stood for."""
    model = copied(file.proto)
    for at in reversed(range(len(model.metadata_props))):
        if model.metadata_props[at].key in allowed.metadata:
            del model.metadata_props[at]
    found: dict[int, Payload] = {}
    for number, tensor in enumerate(tensors(model)):
        payload = file.payloads.get(stored(tensor))
        if payload is None:
            continue
        found[number] = payload
        if tensor.HasField("raw_data"):
            tensor.raw_data = b""
        elif tensor.float_data:
            tensor.float_data[:] = [0.0]
        else:
            tensor.double_data[:] = [0.0]
    return model, found


def _check_trained(
    before: onnx.ModelProto, after: onnx.ModelProto, new: Mapping[int, Payload], allowed: Allowed, folder: Path
) -> set[int]:
    """Compare the trained tensors with what they should hold, take their data out of both models, return their numbers.

    A tensor's number is its place in `tensors`.
    """
    old_places, new_places = tensors_by_place(before), tensors_by_place(after)
    kept = list(tensors(after))  # keeps Python's objects alive, so that id() tells tensors apart
    numbers = {id(tensor): number for number, tensor in enumerate(kept)}
    trained: set[int] = set()
    for place, data in allowed.trained.items():
        name = "/".join(filter(None, place))
        tensor = new_places.get(place)
        number = numbers.get(id(tensor), -1)
        if tensor is None or _data(tensor, new.get(number), folder) != data:
            raise ContractError(f"the weight {name!r} was not written as it was trained")
        trained.add(number)
        for item in (old_places[place], tensor):
            for field_name in _FIELDS:
                item.ClearField(field_name)
    return trained


def _data(tensor: TensorProto, payload: Payload | None, folder: Path) -> bytes:
    if payload is not None:
        return _read(payload)
    if tensor.data_location == TensorProto.EXTERNAL:
        spot = external_place(tensor)
        return OpenedFile(resolve(folder, spot.location), "external data").read(spot.offset, bytes_of(tensor))
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    if tensor.float_data:
        return np.asarray(tensor.float_data, "<f4").tobytes()
    if tensor.double_data:
        return np.asarray(tensor.double_data, "<f8").tobytes()
    return np.asarray(tensor.int32_data, "<i4").astype("<u2").tobytes()


def _check_external(source: ModelFile, allowed: Allowed, folder: Path) -> None:
    """Compare what is between the trained tensors in files of external data."""
    if source.folder is None or not allowed.renamed:
        return
    places = tensors_by_place(source.proto)
    spans: dict[str, list[tuple[int, int]]] = {location: [] for location in allowed.renamed}
    for place in allowed.trained:
        tensor = places[place]
        if tensor.data_location == TensorProto.EXTERNAL:
            spot = external_place(tensor)
            spans[spot.location].append((spot.offset, spot.offset + bytes_of(tensor)))
    for location, trained in spans.items():
        one = OpenedFile(resolve(source.folder, location), "external data").view()
        other = OpenedFile(resolve(folder, allowed.renamed[location]), "external data").view()
        position = 0
        for start, end in [*sorted(set(trained)), (len(one), len(one))]:
            if len(one) != len(other) or not _same(one[position:start], other[position:start]):
                raise ContractError(f"writing the weights changed {location!r} outside the trained tensors")
            position = end


def _same(left: Payload, right: Payload) -> bool:
    if len(left) != len(right):
        return False
    starts = range(0, len(left), _PIECE_BYTES)
    return all(_read(left[at : at + _PIECE_BYTES]) == _read(right[at : at + _PIECE_BYTES]) for at in starts)


def _read(data: Payload) -> bytes:
    return b"".join(bytes(part) for part in pieces(data))
