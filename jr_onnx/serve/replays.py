"""Answer requests by replaying captured CUDA graphs, which spares the launches of all kernels but one.

A graph is captured for a number of rows. Every thread that runs the model has a session of its own: ONNX Runtime keeps
a session's graphs by thread, and runs them on one stream. All graphs are captured on loading, and each is tried with
other inputs before it serves. Requests of other sizes run without a graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from jr_onnx.data.fitting import padded
from jr_onnx.deploy.model import ModelFacts
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError
from jr_onnx.rows import TrialInput
from jr_onnx.runtime.fixed import FixedBinding
from jr_onnx.runtime.running import Session
from jr_onnx.serve.call import ModelInterface
from jr_onnx.serve.guard import GPU
from jr_onnx.serve.tensors import TensorSpec

_NUMBERS: Final = "fiub"  # kinds of element types that a GPU holds
_MOST_PADDING: Final = 2  # rows are padded to a graph's as long as that is at most so many times their number


@dataclass(frozen=True)
class GraphSizes:
    """Which graphs a model gets.

    Attributes:
        rows: Numbers of rows, ascending; () for a model without a batch axis, which has one graph.
        may_pad: Fewer rows than a graph takes may be padded, since no row depends on another.
    """

    rows: tuple[int, ...]
    may_pad: bool

    def graph_for(self, rows: int) -> int | None:
        """Return the number of rows of the graph that so many rows are run with, None for none."""
        most = rows * _MOST_PADDING if self.may_pad else rows
        return next((size for size in self.rows if rows <= size <= most), None)


def why_not_captured(facts: ModelFacts, interface: ModelInterface) -> str:
    """Return why runs of a model cannot be captured, "" where nothing is known against it."""
    if facts.draws_in_graph:
        return f"its operator {facts.draws_in_graph} would repeat the captured numbers in every replay"
    kappa = next((name for name in interface.inputs if name in facts.kappa_inputs), "")
    if kappa and not interface.inputs[kappa].optional:
        return f"requests bring the kappa input {kappa!r}"
    skip = 1 if interface.batched else 0
    for name, spec in _required(interface).items():
        if spec.dims is None or -1 in spec.dims[skip:]:
            return f"the sizes of input {name!r} are open"
        if spec.dtype.kind not in _NUMBERS:
            return f"input {name!r} does not hold numbers"
    return ""


class Replays:
    """The captured graphs of one model.

    Args:
        sessions: One for every thread that runs the model; opened to capture.
        interface: The model's interface.
    """

    def __init__(self, sessions: Sequence[Session], interface: ModelInterface) -> None:
        self._names = list(interface.outputs)
        self._specs = _required(interface)
        self._batched = interface.batched
        self._sizes = GraphSizes((), may_pad=False)
        self._free = list(sessions)
        self._any = sessions[0]
        self._lock = threading.Lock()
        self._own = threading.local()

    def capture(self, sizes: GraphSizes, in_every_thread: Callable[[Callable[[], None]], None]) -> None:
        """Capture the graphs of every thread.

        Args:
            sizes: Which.
            in_every_thread: Calls a function in each thread that will run the model.

        Raises:
            Exception: A capture failed, or a graph answers with old inputs; the sessions must not be used any more.
        """
        self._sizes = sizes
        in_every_thread(self._capture_here)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Return outputs; by a replay where a graph fits."""
        session = getattr(self._own, "session", None)
        if session is None:  # before the capture
            with self._lock:
                return self._any.run(names, feed)
        rows = len(next(iter(feed.values()))) if self._batched else 0
        size = self._sizes.graph_for(rows) if self._batched else 0
        graph = self._own.graphs.get(size)
        if graph is None or feed.keys() != self._specs.keys():
            answers: list[Array] = session.run(names, feed)
            return answers
        graph.put({name: padded(feed[name], size) if size else feed[name] for name in self._specs})
        graph.run()
        outputs = dict(zip(self._names, graph.fetch(), strict=True))
        return [outputs[name][:rows] if size else outputs[name] for name in names or self._names]

    def _capture_here(self) -> None:
        with self._lock:
            session = self._free.pop()
        graphs = {}
        for number, size in enumerate(self._sizes.rows if self._batched else (0,)):
            graphs[size] = self._captured(session, number, size)
        self._own.graphs, self._own.session = graphs, session

    def _captured(self, session: Session, number: int, size: int) -> FixedBinding:
        """Capture a graph and try it.

        Raises:
            InputError: It answers with the inputs that it was captured with.
        """
        generator = np.random.default_rng(number)
        feeds = [_drawn(self._specs.values(), generator, size) for _ in range(2)]
        with GPU.together():
            # These runs also let cuDNN choose its kernels, which a capture does not allow.
            wanted = [session.run(self._names, feed) for feed in feeds]
        with GPU.alone():
            graph = FixedBinding(session, feeds[0], wanted[0], graph=number)
            found = []
            for feed in feeds:
                graph.put(feed)
                graph.run()
                found.append(graph.fetch())
        if _differ(*wanted) and not _differ(*found):
            raise InputError("a replay on other inputs gives the answer of the run that was captured")
        return graph


def _required(interface: ModelInterface) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in interface.inputs.items() if not spec.optional}


def _drawn(specs: Iterable[TensorSpec], generator: np.random.Generator, size: int) -> dict[str, Array]:
    """Draw inputs of so many rows; 0 for a model without a batch axis."""
    feed = {}
    for spec in specs:
        dims = spec.dims or ()
        if size:
            row = TrialInput(spec.name, dims, spec.dtype)
            feed[spec.name] = np.concatenate([row.draw(generator) for _ in range(size)])
        else:
            feed[spec.name] = TrialInput(spec.name, (1, *dims), spec.dtype).draw(generator)[0]
    return feed


def _differ(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return any(left.tobytes() != right.tobytes() for left, right in zip(one, other, strict=True))
