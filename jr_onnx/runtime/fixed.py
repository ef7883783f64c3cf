"""Inputs and outputs of a session at fixed places in a GPU's memory, which a captured CUDA graph needs.

A captured graph holds addresses: a replay reads the inputs from, and writes the outputs to, the memory that was bound
when it was captured. So new inputs are copied to the old places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jr_onnx.element_types import Array
from jr_onnx.errors import require
from jr_onnx.runtime.graphs import GRAPH_ID
from jr_onnx.runtime.providers import device_id
from jr_onnx.runtime.running import Session


class FixedBinding:
    """A session on CUDA whose inputs and outputs stay on the device.

    Args:
        session: ONNX Runtime's session, or `jr_onnx.InferenceSession`.
        feed: The inputs by name.
        outputs: Arrays like all outputs of the session, in its order; without them ONNX Runtime allocates the outputs
            for every run, which excludes a captured graph.
        graph: Which of the session's captured graphs, where it captures; the first run captures it.
    """

    def __init__(
        self, session: Session, feed: Mapping[str, Array], outputs: Sequence[Array] | None = None, *, graph: int = 0
    ) -> None:
        ort = require("onnxruntime", "gpu")
        gpu_session: Any = session
        self._session = gpu_session
        self._binding = gpu_session.io_binding()
        self._options = ort.RunOptions()
        self._options.add_run_config_entry(GRAPH_ID, str(graph))
        place = "cuda", device_id(gpu_session.get_provider_options())
        self._inputs = {name: ort.OrtValue.ortvalue_from_numpy(value, *place) for name, value in feed.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._outputs: list[Any] = []
        for index, output in enumerate(session.get_outputs()):
            if outputs is None:
                self._binding.bind_output(output.name, *place)
                continue
            self._outputs.append(ort.OrtValue.ortvalue_from_numpy(outputs[index], *place))
            self._binding.bind_ortvalue_output(output.name, self._outputs[-1])

    def put(self, feed: Mapping[str, Array]) -> None:
        """Copy inputs of the same shapes and element types to their places; returns when they are there."""
        for name, value in feed.items():
            self._inputs[name].update_inplace(value)

    def run(self) -> None:
        """Compute, and wait until the outputs are there."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def fetch(self) -> list[Array]:
        """Return copies of the outputs."""
        return [value.numpy() for value in self._outputs or self._binding.get_outputs()]
