"""Counts and times of a model since it was loaded, as the protocol's statistics extension has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jr_onnx.records import JsonValue

if TYPE_CHECKING:
    from jr_onnx.serve.model import ServedModel

_NANO = 1_000_000_000
_SIZES = 1024  # different numbers of rows that are distinguished; a client may choose any


class Duration:
    """How often something happened, and its total duration."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count something that took so long each time."""
        self.count += times
        self.seconds += seconds * times

    def form(self) -> dict[str, JsonValue]:
        """Return the protocol's form, in nanoseconds."""
        return {"count": self.count, "ns": int(self.seconds * _NANO)}


class Statistics:
    """The statistics of one version of one model.

    Requests are those that reached the model; `compute_input` and `compute_output` are not measured apart from the run.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._runs = 0
        self._last_ms = 0
        self._success = Duration()
        self._fail = Duration()
        self._queue = Duration()
        self._compute = Duration()
        self._by_rows: dict[int, Duration] = {}

    def answered(self, seconds: float, *, well: bool) -> None:
        """Count a request."""
        (self._success if well else self._fail).add(seconds)

    def waited(self, seconds: float) -> None:
        """Count the time of a request in the queue."""
        self._queue.add(seconds)

    def ran(self, seconds: float, rows: int, requests: int) -> None:
        """Count a run of the session that answered so many requests."""
        self._rows += rows
        self._runs += 1
        self._last_ms = time.time_ns() // 1_000_000
        self._compute.add(seconds, requests)
        if rows in self._by_rows or len(self._by_rows) < _SIZES:
            self._by_rows.setdefault(rows, Duration()).add(seconds)

    def form(self, name: str, version: str) -> dict[str, JsonValue]:
        """Return the protocol's form (`ModelStatistics`)."""
        nothing: JsonValue = {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version,
            "last_inference": self._last_ms,
            "inference_count": self._rows,
            "execution_count": self._runs,
            "inference_stats": {
                "success": self._success.form(),
                "fail": self._fail.form(),
                "queue": self._queue.form(),
                "compute_input": nothing,
                "compute_infer": self._compute.form(),
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": nothing,
                    "compute_infer": self._by_rows[rows].form(),
                    "compute_output": nothing,
                }
                for rows in sorted(self._by_rows)
            ],
        }


def all_forms(models: Sequence[ServedModel]) -> dict[str, JsonValue]:
    """Return the statistics of models (`ServedModel`) in the protocol's form."""
    return {"model_stats": [model.metrics.statistics.form(model.name, model.version) for model in models]}
