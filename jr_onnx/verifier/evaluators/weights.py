"""A model with all its weights in memory, for evaluators that know neither tokens nor external files."""

from __future__ import annotations

import onnx

from jr_onnx.errors import JrError
from jr_onnx.modelfile import ModelFile, check, whole
from jr_onnx.verifier.evaluators.errors import CannotLoadError

_EXTERNAL_LIMIT_BYTES = 1 << 30


def with_weights(source: ModelFile) -> onnx.ModelProto:
    """Return a copy of a model with its payloads and external data.

    Raises:
        CannotLoadError: The data is missing, or too much for a reference run.
    """
    try:
        files = () if source.folder is None else check(source.proto, source.folder)
        size = sum(item.length_bytes for item in files)
        if size > _EXTERNAL_LIMIT_BYTES:
            raise CannotLoadError(f"{size} bytes of external data are too much for the reference evaluator")
        return whole(source)
    except JrError as error:
        raise CannotLoadError(error.message) from error
