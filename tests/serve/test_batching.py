"""Requests are joined where they may be, and answers stay what they are alone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("prometheus_client", reason="kserve is not installed")

from jr_onnx.serve.batching import Batcher
from jr_onnx.serve.call import Call
from jr_onnx.serve.faults import BadRequestError, InternalError, OverloadedError, TimedOutError
from jr_onnx.serve.gate import ByteBudget
from jr_onnx.serve.metrics import ModelMetrics
from jr_onnx.verifier.whole_model.tolerance import rounding_bound
from tests.serve.support import Rest, request
from tools.checks.serving.processes import ServerProcess

Feed = Mapping[str, np.ndarray]


class Recorder:
    """A model that doubles its input, takes its time, and remembers what it was run on."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.runs: list[np.ndarray] = []
        self.threads: set[str] = set()

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        time.sleep(self.seconds)
        self.runs.append(feed["x"])
        self.threads.add(threading.current_thread().name)
        if (feed["x"] < 0).any():
            raise ValueError("a negative number")
        return {"y": feed["x"] * 2}


def batcher(run: Callable[[Feed], Any], **options: Any) -> Batcher:
    settings = {"max_rows": 8, "max_bytes": 1 << 20, "delay_s": 0.0, "instances": 1, "queue": 100, **options}
    return Batcher(run, ModelMetrics("test", "1"), **settings)


def call(*values: float, width: int = 3, dtype: Any = np.float32) -> Call:
    array = np.tile(np.array(values, dtype)[:, None], (1, width))
    return Call({"x": array}, len(values), "", {"y": False})


def ask(queue: Batcher, calls: list[Call], timeout_s: float = 10.0) -> list[Any]:
    async def work() -> list[Any]:
        return await asyncio.gather(*(queue.submit(one, timeout_s) for one in calls), return_exceptions=True)

    answers = asyncio.run(work())
    queue.close()
    return answers


def test_waiting_requests_are_joined_and_each_gets_its_rows() -> None:
    model = Recorder(0.02)
    calls = [call(number, number + 0.5) for number in range(10)]
    answers = ask(batcher(model), calls)
    for one, answer in zip(calls, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], one.inputs["x"] * 2)
    assert [len(run) for run in model.runs] == [8, 8, 4]


def test_shapes_and_types_are_never_mixed() -> None:
    model = Recorder(0.02)
    calls = [call(1), call(2, width=4), call(3, dtype=np.float64), call(4), call(5, width=4)]
    answers = ask(batcher(model), calls)
    for one, answer in zip(calls, answers, strict=True):
        assert answer["y"].dtype == one.inputs["x"].dtype
        np.testing.assert_array_equal(answer["y"], one.inputs["x"] * 2)
    assert sorted((run.shape, run.dtype.name) for run in model.runs) == [
        ((1, 3), "float64"), ((2, 3), "float32"), ((2, 4), "float32"),
    ]  # fmt: skip


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    model = Recorder(0.01)
    ask(batcher(model, max_rows=4), [call(*range(9)), call(1)])
    assert [len(run) for run in model.runs] == [9, 1]


def test_large_rows_are_joined_only_as_far_as_there_are_bytes_for_them() -> None:
    for width, sizes in ((16, [8, 4]), (100, [3, 3, 3, 3]), (500, [1] * 12)):
        model = Recorder(0.02)
        ask(batcher(model, max_bytes=3 * 400), [call(number, width=width) for number in range(12)])
        assert [len(run) for run in model.runs] == sizes, f"rows of {4 * width} bytes"


def test_nothing_is_joined_where_that_is_not_wanted() -> None:
    model = Recorder(0.005)
    ask(batcher(model, max_rows=1), [call(1) for _ in range(6)])
    assert [len(run) for run in model.runs] == [1] * 6


def test_a_delay_waits_for_later_requests() -> None:
    model = Recorder()

    async def work() -> None:
        queue = batcher(model, delay_s=0.2)
        first = asyncio.create_task(queue.submit(call(1), 10))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, queue.submit(call(2), 10))
        queue.close()

    asyncio.run(work())
    assert [len(run) for run in model.runs] == [2]


def test_a_request_that_fails_does_not_fail_the_others() -> None:
    answers = ask(batcher(Recorder(0.01)), [call(1), call(-1), call(3)])
    assert isinstance(answers[1], InternalError)
    assert answers[1].origin.startswith("ValueError: a negative number at /")
    np.testing.assert_array_equal(answers[0]["y"], call(2).inputs["x"])
    np.testing.assert_array_equal(answers[2]["y"], call(6).inputs["x"])


def test_a_first_dimension_that_is_no_batch_gives_no_wrong_answers() -> None:
    answers = ask(batcher(lambda feed: {"y": feed["x"].sum(keepdims=True)}), [call(1), call(2)])
    assert [answer["y"].item() for answer in answers] == [3.0, 6.0]


def test_a_full_queue_refuses() -> None:
    answers = ask(batcher(Recorder(0.05), queue=3, max_rows=1), [call(number) for number in range(6)])
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert len(refused) == 3
    assert "3 requests are waiting already" in str(refused[0])


def test_a_request_that_waits_too_long_is_told_so_and_never_run() -> None:
    model = Recorder(0.3)
    answers = ask(batcher(model, max_rows=1), [call(1), call(2)], timeout_s=0.1)
    assert all(isinstance(answer, TimedOutError) for answer in answers)
    assert len(model.runs) <= 1


def test_a_request_that_its_client_gave_up_is_not_run() -> None:
    model = Recorder(0.1)

    async def work() -> None:
        queue = batcher(model, max_rows=1)
        tasks = [asyncio.create_task(queue.submit(call(number), 10)) for number in range(3)]
        await asyncio.sleep(0.02)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        queue.close()

    asyncio.run(work())
    assert [run[0, 0] for run in model.runs] == [0, 2]


def test_short_runs_move_to_the_event_loop_and_long_ones_do_not() -> None:
    quick, long = Recorder(), Recorder(0.01)
    for model, expected in ((quick, True), (long, False)):

        async def work(model: Recorder = model) -> None:
            queue = batcher(model)
            for number in range(20):
                await queue.submit(call(number), 10)
            queue.close()

        asyncio.run(work())
        assert (threading.current_thread().name in model.threads) is expected


def test_what_small_inputs_cost_says_nothing_of_large_ones() -> None:
    threads: dict[int, set[bool]] = {}

    def model(feed: Feed) -> dict[str, np.ndarray]:
        width = feed["x"].shape[1]
        is_loop = threading.current_thread() is threading.main_thread()
        threads.setdefault(width, set()).add(is_loop)
        return {"y": feed["x"]}

    async def work(inline: bool) -> None:
        queue = batcher(model, inline=inline)
        for _ in range(20):
            await queue.submit(call(1), 10)
        await queue.submit(call(1, width=1000), 10)
        queue.close()

    asyncio.run(work(True))
    assert threads == {3: {True, False}, 1000: {False}}, "the first run of every size is tried in a thread"
    threads.clear()
    asyncio.run(work(False))
    assert threads == {3: {False}, 1000: {False}}


def test_a_request_that_is_given_up_leaves_the_queue_and_its_memory() -> None:
    budget = ByteBudget(1000)
    model = Recorder(0.2)

    async def work() -> None:
        queue = batcher(model, max_rows=1, queue=1)
        running = asyncio.create_task(queue.submit(call(0), 10))
        await asyncio.sleep(0.05)
        given_up = call(1)
        given_up.holding = budget.settled()
        given_up.holding.grow(900)
        task = asyncio.create_task(queue.submit(given_up, 10))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert budget.used == 0
        await asyncio.gather(running, queue.submit(call(2), 10))  # there is a place again
        queue.close()

    asyncio.run(work())
    assert [run[0, 0] for run in model.runs] == [0, 2]


def test_joined_answers_agree_with_single_ones(server: ServerProcess, models: dict[str, Path]) -> None:
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((200, 16)).astype(np.float32)
    client = Rest(server.http_port)
    before = _runs(client)
    alone = np.concatenate([client.infer("fixed", request(row[None])).output() for row in rows])
    single = _runs(client) - before
    client.close()

    def several(part: np.ndarray) -> np.ndarray:
        one = Rest(server.http_port)
        try:
            return np.concatenate([one.infer("fixed", request(row[None])).output() for row in part])
        finally:
            one.close()

    with ThreadPoolExecutor(10) as pool:
        together = np.concatenate(list(pool.map(several, np.array_split(rows, 10))))
    # The rule of verify: the original, evaluated in one batch and row by row, says how far rounding goes.
    session = onnxruntime.InferenceSession(str(models["fixed"].with_name("plain.onnx")))
    (joined,) = session.run(None, {"x": rows})
    apart = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    assert np.abs(together - alone).max() <= rounding_bound([(joined, apart)]).value
    assert single == 200


def test_a_model_whose_rows_see_each_other_is_not_joined(server: ServerProcess) -> None:
    assert "it works over the axis of the batch" in server.log


def test_a_model_that_draws_its_kappa_is_not_joined(server: ServerProcess) -> None:
    assert "requests are not joined: it draws its kappa once a run" in server.log


def _runs(client: Rest) -> float:
    start = 'jr_onnx_run_requests_count{model="fixed"'
    lines = client.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


@pytest.mark.parametrize("count", [1, 3])
def test_a_request_that_fails_leaves_nothing_for_the_garbage_collector(count: int) -> None:
    def model(feed: Feed) -> dict[str, np.ndarray]:
        try:
            int("a negative number")
        except ValueError as error:
            raise BadRequestError(f"{error} in {len(feed)} inputs") from error

    async def work() -> None:
        queue = batcher(model)
        calls = [call(-1) for _ in range(count)]
        seen = [weakref.ref(one.inputs["x"]) for one in calls]
        tasks = [asyncio.create_task(queue.submit(calls.pop(), 10)) for _ in range(count)]
        await asyncio.wait(tasks)
        for task in tasks:
            with pytest.raises(BadRequestError, match="negative"):
                await task
        tasks.clear()
        del task
        for _ in range(200):  # the thread lets go of them a moment after its end
            if not any(one() is not None for one in seen):
                break
            await asyncio.sleep(0.005)
        assert [one() for one in seen] == [None] * count
        queue.close()

    gc.disable()
    try:
        asyncio.run(work())
    finally:
        gc.enable()


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    model = Recorder()
    started = time.perf_counter()
    ask(batcher(model, delay_s=30.0, max_rows=4), [call(number) for number in range(4)])
    ask(batcher(model, delay_s=30.0, max_bytes=1200), [call(number, width=100) for number in range(3)])
    assert [len(run) for run in model.runs] == [4, 3]
    assert time.perf_counter() - started < 15
