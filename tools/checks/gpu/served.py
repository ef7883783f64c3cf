"""What captured graphs and bound memory save a server: requests from NumPy to NumPy, with and without a graph."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jr_onnx.bench.clock import interleave
from jr_onnx.deploy.model import read_model
from jr_onnx.rewriter import rewrite
from jr_onnx.rows.trial import close
from jr_onnx.serve.opening import interface_of, open_session
from jr_onnx.serve.options import Limits, Running
from jr_onnx.serve.private import read_privately
from jr_onnx.serve.replays import GraphSizes, Replays, why_not_captured
from tools.checks.gpu.findings import SkipCheckError, Verdict
from tools.checks.gpu.models import KAPPA, network
from tools.checks.gpu.sessions import CPU, CUDA

_ROWS = (1, 8, 32)
_ROUNDS = 30
_WITHOUT = ("default", "both")
_WITH = ("graph", "graph_both")


def replayed(name: str, rows: Sequence[int] = _ROWS, rounds: int = _ROUNDS) -> Verdict:
    """Compare the server's captured graphs with its runs without one, and time both; see `compare`."""
    return compare(network(name), rows, rounds)


def compare(original: onnx.ModelProto, rows: Sequence[int], rounds: int) -> Verdict:
    """Open a retrofit as the server does, with every kind of options, and ask it the same.

    Args:
        original: A model whose first axis is a batch of images.
        rows: Sizes of requests.
        rounds: How often each is asked.
    """
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        path = Path(folder) / "served.onnx"
        onnx.save(rewrite(original, KAPPA, target="cuda")[0], str(path))
        runs = {options: _opened(path, options, rows) for options in (*_WITHOUT, *_WITH)}
    names = [value.name for value in original.graph.output]
    (image,) = original.graph.input
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim][1:]
    generator = np.random.default_rng(1000)  # other inputs than those that the capture was tried with
    figures: dict[str, str | float] = {}
    wrong, words = 0, []
    for count in rows:
        feeds = [{image.name: generator.standard_normal((count, *shape)).astype(np.float32)} for _ in range(2)]
        for feed in feeds:  # the second shows whether a graph answers with the first
            answers = {options: run(names, feed)[0] for options, run in runs.items()}
            for bare, captured in zip(_WITHOUT, _WITH, strict=True):
                wrong += not close(answers[captured], answers[bare])
        asked = [functools.partial(run, names, feeds[0]) for run in runs.values()]
        times = np.median(interleave(asked, rounds), axis=0)
        figures |= {f"{options}, {count} rows, ms": float(ms) for options, ms in zip(runs, times, strict=True)}
        listed = ", ".join(f"{options} {ms:.2f}" for options, ms in zip(runs, times, strict=True))
        words.append(f"{count} rows: {listed} ms")
    figures["wrong"] = wrong
    return Verdict("failed" if wrong else "passed", f"{wrong} answers differ; {'; '.join(words)}", figures)


def _opened(path: Path, options: str, rows: Sequence[int]) -> Callable[..., list[Any]]:
    """Return what runs the model with options of the provider, its graphs captured where they capture."""
    running = Running(providers=(CUDA, CPU), cuda_options=options)
    source = read_privately(path)
    session = open_session(source, running)
    if not running.captures:
        run: Callable[..., list[Any]] = session.run
        return run
    facts = read_model(path, source=source.file)
    interface = interface_of("served", "1", facts, running, Limits())
    reason = why_not_captured(facts, interface)
    if reason:
        raise SkipCheckError(f"the model cannot be captured: {reason}")
    replays = Replays([session], interface)
    replays.capture(GraphSizes(tuple(rows), may_pad=False), lambda capture: capture())
    return replays.run
