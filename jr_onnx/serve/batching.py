"""Waiting requests, and how they are joined into runs: a bounded queue in front of one model's session.

Requests with the same inputs, element types and sizes beyond the batch are joined, up to a number of rows and of
bytes; a request never waits longer than the delay for others. While all instances run, requests pile up and join
without any delay.

A run that takes less than a thread switch is done on the event loop itself; longer ones in threads, so that the
server stays responsive. The queue belongs to the event loop: there are no locks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.serve.call import Call
from jr_onnx.serve.faults import NotReadyError, OverloadedError, TimedOutError, detached
from jr_onnx.serve.gate import Holding
from jr_onnx.serve.metrics import ModelMetrics

INLINE_SECONDS: Final = 0.0005
"""Shorter runs are done on the event loop; handing over to a thread and back costs about as much."""

_SMOOTHING: Final = 0.2
_UNKNOWN: Final = float("inf")
_KEYS: Final = 1024  # whose cost is remembered
_Key = tuple[Any, ...]
Outputs = dict[str, Array]
Run = Callable[[Mapping[str, Array]], Outputs]
_Answer = Outputs | Exception


@dataclass(slots=True, eq=False)
class _Waiting:
    inputs: dict[str, Array]
    rows: int
    bytes: int
    answer: asyncio.Future[Outputs]
    since: float
    holding: Holding | None = None
    timer: asyncio.TimerHandle | None = field(default=None)

    def let_go(self) -> None:
        """Drop the inputs: the answer is ready, or no client waits for it any more."""
        self.inputs = {}
        if self.holding is not None:
            self.holding.release()


class Batcher:
    """The queue of one model.

    Args:
        run: Computes the outputs of a feed; called from several threads if there are several instances.
        metrics: Where waiting and running are recorded.
        max_rows: Largest batch to join; 1 never joins.
        max_bytes: Largest inputs of a batch that is joined, together: a run of joined requests takes them once more.
        delay_s: How long a request may wait for others.
        instances: How many runs there are at a time.
        queue: How many requests may wait.
        inline: Short runs may be done on the event loop; not where the values of inputs decide how long a run takes.
    """

    def __init__(
        self,
        run: Run,
        metrics: ModelMetrics,
        *,
        max_rows: int,
        max_bytes: int,
        delay_s: float,
        instances: int,
        queue: int,
        inline: bool = True,
    ) -> None:
        self._run = run
        self._metrics = metrics
        self._max_rows = max(1, max_rows)
        self._max_bytes = max_bytes
        self._delay_s = delay_s if max_rows > 1 else 0.0
        self._queue = queue
        self._inline_seconds = INLINE_SECONDS if inline else 0.0
        self._free = instances
        self._lines: OrderedDict[_Key, deque[_Waiting]] = OrderedDict()
        self._length = 0
        self._busy = 0
        self._row_seconds: OrderedDict[_Key, float] = OrderedDict()  # unknown sizes go to a thread
        self._wakeup: asyncio.Handle | None = None
        self._threads = ThreadPoolExecutor(instances, thread_name_prefix="jr-onnx-run")

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._length + self._busy

    async def submit(self, call: Call, timeout_s: float, seconds_left: float | None = None) -> Outputs:
        """Wait for the answer of a request, whose inputs are taken over along with what they hold of the budget.

        Args:
            call: The request.
            timeout_s: How long it may take.
            seconds_left: How much of that is left; None for all of it.

        Raises:
            OverloadedError: The queue is full.
            TimedOutError: The answer was not ready in time.
        """
        loop = asyncio.get_running_loop()
        key = self._key(call)
        size = sum(array.nbytes for array in call.inputs.values())
        waiting = _Waiting(call.inputs, call.rows, size, loop.create_future(), time.perf_counter(), call.holding)
        if self._length >= self._queue:
            waiting.let_go()
            raise OverloadedError(f"{self._length} requests are waiting already", hint="Ask again later")
        left = timeout_s if seconds_left is None else max(0.0, seconds_left)
        waiting.timer = loop.call_later(left, self._expire, waiting, key, timeout_s)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
        line.append(waiting)
        self._length += 1
        self._schedule(loop, line)
        try:
            return await waiting.answer
        finally:
            waiting.timer.cancel()
            if waiting.answer.cancelled():  # the client has gone
                self._leave(waiting, key)
            del waiting, call  # an error holds this frame, and the answer holds the error

    def _schedule(self, loop: asyncio.AbstractEventLoop, line: deque[_Waiting]) -> None:
        """Schedule the next look at the queue: soon, or after the delay where a batch may still grow."""
        if not self._free:
            return  # a run that ends looks
        grows = self._delay_s > 0 and sum(waiting.rows for waiting in line) < self._limit(line[0])
        if self._wakeup is not None and not grows:
            self._wakeup.cancel()
            self._wakeup = None
        if self._wakeup is None:
            # Even without a delay, one turn of the event loop lets the requests that have arrived already join.
            self._wakeup = loop.call_later(self._delay_s, self._flush) if grows else loop.call_soon(self._flush)

    def close(self) -> None:
        """Stop the threads; nothing may be submitted any more."""
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def in_every_thread(self, work: Callable[[], None]) -> None:
        """Call a function once in each thread that runs the model, before the first request.

        Raises:
            Exception: The first that it raised.
        """
        everywhere = threading.Barrier(self._free)

        def once() -> None:
            everywhere.wait()  # so that no thread does it twice
            work()

        for done in [self._threads.submit(once) for _ in range(self._free)]:
            done.result()

    def _expire(self, waiting: _Waiting, key: _Key, timeout_s: float) -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(TimedOutError(f"the answer was not ready within {timeout_s:g} s"))
            self._leave(waiting, key)

    def _leave(self, waiting: _Waiting, key: _Key) -> None:
        """Remove a request that no client waits for from its queue; a running one is dropped after its run."""
        line = self._lines.get(key)
        if line is None or waiting not in line:
            return
        line.remove(waiting)
        if not line:
            del self._lines[key]
        self._length -= 1
        waiting.let_go()

    def _key(self, call: Call) -> _Key:
        if self._max_rows == 1:  # perhaps because the first size is not a batch
            return tuple((name, array.dtype.char, array.shape) for name, array in call.inputs.items())
        return tuple((name, array.dtype.char, array.shape[1:]) for name, array in call.inputs.items())

    def _flush(self) -> None:
        self._wakeup = None
        while self._free and self._length:
            key, group = self._take()
            if group:
                self._start(key, group)
        self._metrics.waiting.set(self._length)

    def _take(self) -> tuple[_Key, list[_Waiting]]:
        """Take as many requests as one run holds from the queue that was served longest ago."""
        key, line = next(iter(self._lines.items()))
        group: list[_Waiting] = []
        rows, limit = 0, self._limit(line[0])
        while line and (not group or rows + line[0].rows <= limit):
            waiting = line.popleft()
            self._length -= 1
            if waiting.answer.done():  # cancelled by its client just now
                waiting.let_go()
            else:
                group.append(waiting)
                rows += waiting.rows
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        return key, group

    def _limit(self, waiting: _Waiting) -> int:
        """Return how many rows like those of a request are joined at most; all rows of a queue are of one size."""
        return min(self._max_rows, self._max_bytes * waiting.rows // waiting.bytes)

    def _start(self, key: _Key, group: list[_Waiting]) -> None:
        now = time.perf_counter()
        for waiting in group:
            self._metrics.waited(now - waiting.since)
        rows = sum(waiting.rows for waiting in group)
        self._metrics.started(rows, len(group))
        if rows * self._row_seconds.get(key, _UNKNOWN) < self._inline_seconds:
            answers, seconds = self._compute([waiting.inputs for waiting in group], rows)
            self._learn(key, seconds, rows, len(group))
            _hand_out(group, answers)
            return
        self._free -= 1
        self._busy += len(group)
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, self._compute, [waiting.inputs for waiting in group], rows
        )
        future.add_done_callback(lambda done: self._finish(key, group, rows, done))

    def _finish(
        self, key: _Key, group: list[_Waiting], rows: int, done: asyncio.Future[tuple[list[_Answer], float]]
    ) -> None:
        self._free += 1
        self._busy -= len(group)
        if done.cancelled():
            answers: list[_Answer] = [NotReadyError("the server has stopped") for _ in group]
        else:
            answers, seconds = done.result()
            self._learn(key, seconds, rows, len(group))
        _hand_out(group, answers)
        self._flush()

    def _learn(self, key: _Key, seconds: float, rows: int, requests: int) -> None:
        """Remember the cost of a row of these types and sizes; a row of other sizes may cost anything."""
        self._metrics.ran(seconds, rows, requests)
        known = self._row_seconds.pop(key, None)
        row_seconds = seconds / rows
        self._row_seconds[key] = row_seconds if known is None else known + _SMOOTHING * (row_seconds - known)
        if len(self._row_seconds) > _KEYS:
            self._row_seconds.popitem(last=False)

    def _compute(self, feeds: list[dict[str, Array]], rows: int) -> tuple[list[_Answer], float]:
        """Run a group, and one by one where the group fails: a bad request must not make another fail."""
        started = time.perf_counter()
        answers = self._joined(feeds, rows) if len(feeds) > 1 else None
        if answers is None:
            answers = [self._alone(feed) for feed in feeds]
        return answers, time.perf_counter() - started

    def _alone(self, feed: dict[str, Array]) -> _Answer:
        try:
            return self._run(feed)
        except Exception as error:  # noqa: BLE001 - it is this request's answer
            return detached(error)

    def _joined(self, feeds: list[dict[str, Array]], rows: int) -> list[_Answer] | None:
        """Run a group as one batch; None where that fails, perhaps for one of them."""
        try:
            outputs = self._run({name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
        except Exception:  # noqa: BLE001 - each is run alone now, and is told what is wrong with it
            return None
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            # The first dimension is not a batch after all; no request gets an answer that may be another's. (Written
            # from a thread, but only ever to 1.)
            self._max_rows = 1
            return None
        answers: list[_Answer] = []
        start = 0
        for feed in feeds:
            stop = start + len(next(iter(feed.values())))
            answers.append({name: array[start:stop] for name, array in outputs.items()})
            start = stop
        return answers


def _hand_out(group: list[_Waiting], answers: list[_Answer]) -> None:
    for waiting, answer in zip(group, answers, strict=True):
        waiting.let_go()
        if waiting.answer.done():
            continue
        if isinstance(answer, Exception):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)
