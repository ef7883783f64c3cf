"""A model with all its weights in memory, for code that knows neither payloads nor external files."""

from __future__ import annotations

from pathlib import Path

import onnx

from jr_onnx.modelfile.external import absorb, check, resolve
from jr_onnx.modelfile.load import ModelFile, load
from jr_onnx.modelfile.messages import copied
from jr_onnx.modelfile.save import assemble
from jr_onnx.opened import OpenedFile


def whole(source: ModelFile) -> onnx.ModelProto:
    """Return a copy of a model with its payloads and its external data in it.

    Raises:
        ModelError: External data is missing, damaged or outside the model's folder, a file changed in the meantime, or
            the model without its external data exceeds protobuf's 2 GB.
    """
    files = () if source.folder is None else check(source.proto, source.folder)
    full = assemble(source.proto, source.payloads) if source.payloads else copied(source.proto)
    if source.folder is not None and files:
        opened = {item.location: OpenedFile(resolve(source.folder, item.location), "external data") for item in files}
        absorb(full, {location: file.view() for location, file in opened.items()})
        for file in opened.values():
            file.require_unchanged()
    return full


def load_whole(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with all its weights: a ModelProto as it is, a file read by `load`; see `whole`."""
    return model if isinstance(model, onnx.ModelProto) else whole(load(model))
