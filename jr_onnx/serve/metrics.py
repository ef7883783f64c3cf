"""Prometheus metrics of the server, labelled by model and version; unknown names never become labels."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from jr_onnx.serve.extensions.statistics import Statistics

_LABELS = ("model", "version")
_OK = 200
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("jr_onnx_requests", "Requests by transport and status.", (*_LABELS, "transport", "status"))
REQUEST_SECONDS = Histogram(
    "jr_onnx_request_seconds", "From the last byte of a request to its answer.", _LABELS, buckets=_SECONDS
)
QUEUE_SECONDS = Histogram("jr_onnx_queue_seconds", "How long requests waited for a run.", _LABELS, buckets=_SECONDS)
RUN_SECONDS = Histogram("jr_onnx_run_seconds", "How long runs of the session took.", _LABELS, buckets=_SECONDS)
RUN_ROWS = Histogram("jr_onnx_run_rows", "Rows of the batches that were run.", _LABELS, buckets=_ROWS)
RUN_REQUESTS = Histogram("jr_onnx_run_requests", "Requests that were joined into a run.", _LABELS, buckets=_ROWS)
WAITING = Gauge("jr_onnx_waiting_requests", "Requests that wait for a run.", _LABELS)


class ModelMetrics:
    """The metrics of one version of one model; finding a label's value costs more than counting."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self.statistics = Statistics()
        self._counters: dict[tuple[str, int], Any] = {}
        self.request_seconds = REQUEST_SECONDS.labels(*self._labels)
        self.queue_seconds = QUEUE_SECONDS.labels(*self._labels)
        self.run_seconds = RUN_SECONDS.labels(*self._labels)
        self.run_rows = RUN_ROWS.labels(*self._labels)
        self.run_requests = RUN_REQUESTS.labels(*self._labels)
        self.waiting = WAITING.labels(*self._labels)

    def count(self, transport: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        counter = self._counters.get((transport, status))
        if counter is None:
            counter = self._counters[transport, status] = REQUESTS.labels(*self._labels, transport, str(status))
        counter.inc()
        self.request_seconds.observe(seconds)
        self.statistics.answered(seconds, well=status == _OK)

    def waited(self, seconds: float) -> None:
        """Count the time of a request in the queue."""
        self.queue_seconds.observe(seconds)
        self.statistics.waited(seconds)

    def started(self, rows: int, requests: int) -> None:
        """Count a run that begins."""
        self.run_rows.observe(rows)
        self.run_requests.observe(requests)

    def ran(self, seconds: float, rows: int, requests: int) -> None:
        """Count a run that has ended."""
        self.run_seconds.observe(seconds)
        self.statistics.ran(seconds, rows, requests)


def count_unknown(transport: str, status: int) -> None:
    """Count a request that reached no model."""
    REQUESTS.labels("", "", transport, str(status)).inc()
