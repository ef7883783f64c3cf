"""Work on threads keeps what it works on only as long as its bytes are counted."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from jr_onnx.serve.workers import copying, parsing


class Body:
    """What a request holds."""


@pytest.mark.parametrize("worker", [copying, parsing])
def test_work_that_is_given_up_before_it_begins_lets_go_of_its_arguments(worker: Callable) -> None:
    async def scenario() -> None:
        begun, goes_on = threading.Event(), threading.Event()

        def occupy() -> None:
            begun.set()
            goes_on.wait(30)

        occupied = asyncio.create_task(worker(occupy))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        body = Body()
        seen = weakref.ref(body)
        task = asyncio.create_task(worker(id, body))
        del body
        await asyncio.sleep(0.01)
        assert seen() is not None
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        assert seen() is None, "the thread has not come to it, but its client has gone"
        goes_on.set()
        await occupied

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_work_that_has_begun_is_waited_for_however_often_it_is_given_up(fails: bool) -> None:
    async def scenario() -> None:
        begun, goes_on = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            goes_on.wait(30)
            if fails:
                raise ValueError("nobody hears this")

        task = asyncio.create_task(copying(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done(), "its bytes are still in use"
        goes_on.set()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()

    asyncio.run(scenario())


def test_work_that_fails_leaves_nothing_for_the_garbage_collector() -> None:
    async def scenario() -> None:
        body = Body()
        seen = weakref.ref(body)

        def refuse(held: Body) -> None:
            raise ValueError(repr(held))

        with pytest.raises(ValueError, match="Body"):
            await parsing(refuse, body)
        del body
        for _ in range(200):  # the thread lets go of the work a moment after its end
            if seen() is None:
                break
            await asyncio.sleep(0.005)
        assert seen() is None

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_results_and_errors_come_back() -> None:
    assert asyncio.run(copying(sum, [1, 2])) == 3
    with pytest.raises(ZeroDivisionError):
        asyncio.run(parsing(divmod, 1, 0))
