"""Run a session once: what is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jr_onnx.element_types import Array
from jr_onnx.runtime.fixed import FixedBinding
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
    return FixedBinding(session, feed, outputs).run
