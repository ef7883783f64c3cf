"""Captured CUDA graphs of a session: refuse replays for which ONNX Runtime would silently use the wrong memory.

With `enable_cuda_graph`, ONNX Runtime captures the first run of a thread and replays it from then on, whatever is fed
or bound later: a graph holds addresses only. It also keeps a graph whose capture failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jr_onnx.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import IOBinding, RunOptions

GRAPH_ID: Final = "gpu_graph_id"
"""ONNX Runtime's run option that names the graph of a session that a run captures or replays."""
NO_GRAPH: Final = "-1"
"""Its value for a run that does neither."""

_FIRST = "0"  # what ONNX Runtime calls the graph of a run whose options name none


@dataclass(frozen=True)
class _Captured:
    binding: IOBinding
    changes: int


class CapturedGraphs(threading.local):
    """The graphs that a session has captured; every thread has its own."""

    def __init__(self) -> None:
        self._known: dict[str, _Captured | None] = {}

    def run(self, run: Callable[[], None], binding: IOBinding, run_options: RunOptions | None) -> None:
        """Capture or replay a graph.

        Args:
            run: Runs the session with the binding and the options.
            binding: What is bound; its `changes` counts how often something was bound to it.
            run_options: ONNX Runtime's, or None.

        Raises:
            InputError: A replay would use other memory than what is bound, or might, since the binding was not made by
                the session; or the graph was not captured whole.
        """
        graph = _graph_of(run_options)
        now = _Captured(binding, getattr(binding, "changes", -1))
        if graph == NO_GRAPH:
            run()
        elif now.changes < 0:
            raise InputError(
                "a captured CUDA graph cannot be replayed with a binding that does not note what is bound to it",
                hint="Make the binding with io_binding() of the session",
            )
        elif graph not in self._known:
            self._known[graph] = None
            run()
            self._known[graph] = now
        elif self._known[graph] == now:
            run()
        elif self._known[graph] is None:
            raise InputError(
                f"CUDA graph {graph} could not be captured, so it cannot be replayed",
                hint="Open the session again without enable_cuda_graph",
            )
        else:
            raise InputError(
                f"CUDA graph {graph} was captured with other memory bound, which a replay would use",
                hint=f"Copy new values into the memory that was bound, or name another {GRAPH_ID} in the run options",
            )


def without_graph(run_options: RunOptions | None) -> RunOptions:
    """Return run options of a run that neither captures nor replays.

    Args:
        run_options: The caller's, which cannot be copied; None for new ones.

    Raises:
        InputError: The caller's ask for a graph.
    """
    if run_options is None:
        import onnxruntime

        run_options = onnxruntime.RunOptions()
        run_options.add_run_config_entry(GRAPH_ID, NO_GRAPH)
    elif _graph_of(run_options) != NO_GRAPH:
        raise InputError(
            "a captured CUDA graph cannot be replayed on inputs that are not bound to it",
            hint=f"Call run_with_iobinding, or set {GRAPH_ID} to {NO_GRAPH} in the run options",
        )
    return run_options


def _graph_of(run_options: RunOptions | None) -> str:
    try:
        return _FIRST if run_options is None else str(run_options.get_run_config_entry(GRAPH_ID))
    except RuntimeError:  # it has no such entry
        return _FIRST
