"""Where the time of a run goes: ONNX Runtime's own profile, summed by operator type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import numpy as np

from jr_onnx.bench.records import OpTime
from jr_onnx.bench.running import Feed, runner
from jr_onnx.bench.variants import Variant

_KERNEL = "_kernel_time"


class ProfileEvent(TypedDict, total=False):
    """What this module reads of an event of ONNX Runtime's profile; `dur` is in microseconds."""

    name: str
    cat: str
    dur: float
    args: dict[str, str]


def profile(
    variant: Variant, provider: str, threads: int, feed: Feed, folder: Path, runs: int = 20
) -> tuple[OpTime, ...]:
    """Profile a variant.

    Args:
        variant: What to run.
        provider: cpu or cuda.
        threads: Threads within an operator.
        feed: The input.
        folder: Where ONNX Runtime may write its profile.
        runs: How many runs; the first is left out.
    """
    session = variant.open(provider, threads, str(folder / f"profile_{variant.name}"))
    run = runner(session, feed, provider)
    for _ in range(runs + 1):
        run()
    return summarise(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")))


def summarise(events: list[ProfileEvent]) -> tuple[OpTime, ...]:
    """Sum the kernels of every run by operator type; the longest first."""
    per_run: list[dict[str, list[ProfileEvent]]] = [{}]
    for event in events:
        if event.get("name") == "model_run":
            per_run.append({})
        elif event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
            per_run[-1].setdefault(event["args"]["op_name"], []).append(event)
    complete = [run for run in per_run if run][1:] or [run for run in per_run if run]
    names = {name for run in complete for name in run}
    found = [_sum(name, [run.get(name, []) for run in complete]) for name in names]
    return tuple(sorted(found, key=lambda item: -item.ms))


def _sum(name: str, runs: list[list[ProfileEvent]]) -> OpTime:
    return OpTime(
        name,
        max(len(kernels) for kernels in runs),
        float(np.median([sum(kernel["dur"] / 1000 for kernel in kernels) for kernels in runs])),
        max(sum(int(kernel["args"].get("output_size", 0)) for kernel in kernels) for kernels in runs),
    )
