"""Run a session once: what is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jr_onnx.element_types import Array
from jr_onnx.runtime.running import Session

Feed = Mapping[str, Array]
"""The inputs of one run, by name."""


def runner(session: Session, feed: Feed, provider: str, outputs: Sequence[Array] | None = None) -> Callable[[], object]:
    """Return a function that runs a session once; on a GPU its inputs and outputs stay there, and it waits for it.

    Args:
        session: The session.
        feed: The inputs.
        provider: cpu or cuda.
        outputs: Arrays like the outputs (N, ...): on a GPU they get places that do not change, which a captured graph
            needs. None lets ONNX Runtime choose places.
    """
    if provider == "cpu":
        return lambda: session.run(None, feed)
    import onnxruntime

    gpu_session: Any = session
    binding = gpu_session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, provider, 0))
    for index, output in enumerate(session.get_outputs()):
        if outputs is None:
            binding.bind_output(output.name, provider, 0)
        else:
            place = onnxruntime.OrtValue.ortvalue_from_numpy(outputs[index], provider, 0)
            binding.bind_ortvalue_output(output.name, place)

    def run() -> None:
        gpu_session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
