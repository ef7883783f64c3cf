"""A model with all its weights in memory, for evaluators that know neither tokens nor external files."""

from __future__ import annotations

import onnx

from jr_onnx.errors import JrError, one_line
from jr_onnx.modelfile import ModelFile, assemble, check
from jr_onnx.verifier.evaluators.errors import CannotLoadError

_EXTERNAL_LIMIT_BYTES = 1 << 30


def with_weights(source: ModelFile) -> onnx.ModelProto:
    """Return a copy of a model with its payloads and external data.

    Raises:
        CannotLoadError: The data is missing, or too much for a reference run.
    """
    try:
        size = 0
        if source.folder is not None:
            size = sum(item.length_bytes for item in check(source.proto, source.folder))
        full = assemble(source.proto, source.payloads)
    except JrError as error:
        raise CannotLoadError(error.message) from error
    if size > _EXTERNAL_LIMIT_BYTES:
        raise CannotLoadError(f"{size} bytes of external data are too much for the reference evaluator")
    proto = onnx.ModelProto()
    proto.CopyFrom(full)
    if size and source.folder is not None:
        try:
            onnx.load_external_data_for_model(proto, str(source.folder))
        except Exception as error:
            raise CannotLoadError(f"the weights cannot be loaded for the reference: {one_line(error)}") from error
    return proto
