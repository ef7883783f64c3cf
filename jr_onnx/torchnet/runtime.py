"""ONNX Runtime as the reference: the model as it is, optimisation off, logits wherever they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jr_onnx.errors import ModelError, one_line, require

Array = npt.NDArray[Any]
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class Reference:
    """One value of a model, computed by ONNX Runtime on the CPU without graph optimisation.

    Args:
        model: A path or a ModelProto.
        output: Name of a value of the main graph; it need not be an output.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, model: str | Path | onnx.ModelProto, output: str) -> None:
        ort = require("onnxruntime", "cpu")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        self._output = output
        try:
            content = _exposing(model, output)
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
            raise ModelError(f"ONNX Runtime refuses the model: {one_line(error)}") from None
        optional = {item.name for item in self._session.get_overridable_initializers()}
        self._input = next(item for item in self._session.get_inputs() if item.name not in optional)
        size = self._input.shape[0] if self._input.shape else None
        self._batch = size if isinstance(size, int) else None
        self._dtype = _TYPES.get(self._input.type, np.float32)

    def __call__(self, inputs: Array) -> Array:
        """Return the value for a batch of any size, (N, ...) flattened to (N, K)."""
        size = self._batch or len(inputs)
        results = []
        for start in range(0, len(inputs), max(1, size)):
            part = inputs[start : start + size]
            missing = size - len(part)
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            found = self._session.run([self._output], {self._input.name: part.astype(self._dtype)})[0]
            results.append(np.asarray(found).reshape(size, -1)[: size - missing])
        return np.concatenate(results) if results else np.zeros((0, 0), dtype=np.float32)


def _exposing(model: str | Path | onnx.ModelProto, output: str) -> str | bytes:
    """Return a path or the bytes of a model one of whose outputs is the wanted value."""
    if isinstance(model, onnx.ModelProto):
        proto = model
    else:
        proto = onnx.load(str(model), load_external_data=False)
        if any(value.name == output for value in proto.graph.output):
            return str(model)
        proto = onnx.load(str(model))
    if not any(value.name == output for value in proto.graph.output):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        copy.graph.output.append(onnx.ValueInfoProto(name=output))
        proto = copy
    return bytes(proto.SerializeToString())
