"""ONNX Runtime as the reference: the model as it is, optimisation off, logits wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from jr_onnx.data import FurtherInputs, ModelInput, padded
from jr_onnx.element_types import Array
from jr_onnx.modelfile import from_proto, load, whole
from jr_onnx.runtime.providers import CPU, ProviderChoice
from jr_onnx.runtime.running import open_model, quiet_options, run


class Reference:
    """One value of a model, computed by ONNX Runtime without graph optimisation.

    Args:
        model: A path or a ModelProto.
        output: Name of a value of the main graph; it need not be an output.
        values: The numbers that fill inputs besides the one that is given.
        providers: Where it computes, as ONNX Runtime takes them.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        InputError: The values do not leave one input, or the session computes on another provider than the first.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        output: str,
        values: Mapping[str, float] | None = None,
        providers: Sequence[ProviderChoice] = (CPU,),
    ) -> None:
        self._output = output
        options = quiet_options(optimised=False)
        self._session = open_model(exposing(model, output), "the model", options=options, providers=providers)
        optional = {item.name for item in self._session.get_overridable_initializers()}
        inputs = [ModelInput.of_session(item) for item in self._session.get_inputs() if item.name not in optional]
        self._further = FurtherInputs(inputs, values or {})
        self._input = self._further.image
        size = self._input.shape[0] if self._input.shape else None
        self._batch = size if isinstance(size, int) else None

    def __call__(self, inputs: Array) -> Array:
        """Return the value for a batch of any size, (N, ...) flattened to (N, K).

        Raises:
            ModelError: ONNX Runtime fails on the model.
        """
        size = self._batch or len(inputs)
        results = []
        for start in range(0, len(inputs), max(1, size)):
            part = inputs[start : start + size]
            count, part = len(part), padded(part, self._batch)
            feeds = {self._input.name: part.astype(self._input.dtype), **self._further.feed(len(part))}
            (found,) = run(self._session, [self._output], feeds, "the model")
            results.append(np.asarray(found).reshape(len(part), -1)[:count])
        return np.concatenate(results) if results else np.zeros((0, 0), dtype=np.float32)


def exposing(model: str | Path | onnx.ModelProto, output: str) -> str | bytes:
    """Return a path or the bytes of a model one of whose outputs is the wanted value."""
    given = from_proto(model) if isinstance(model, onnx.ModelProto) else load(model)
    is_output = any(value.name == output for value in given.proto.graph.output)
    if is_output and given.path is not None:
        return str(given.path)
    full = whole(given)
    if not is_output:
        full.graph.output.append(onnx.ValueInfoProto(name=output))
    return bytes(full.SerializeToString())
