"""Work that would block the event loop: it is done on threads, one piece of a kind at a time.

One at a time bounds the memory that a copy or a parsed text takes beside the budget. Parsing JSON has a thread of its
own, because it takes far longer, byte for byte, than copying tensors, which must not wait for it.

The request that waits for a piece of work holds its bytes in the budget. If the request is cancelled, because the
client has gone, work that has not begun is dropped with its arguments, and work that has begun is waited for: bytes
are never given back while a thread still uses them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

LARGE_BYTES: Final = 2 << 20
"""What is copied in a fraction of a millisecond is copied on the event loop."""

LARGE_TEXT_BYTES: Final = 8 * 1024
"""The same for JSON and typed contents, which take up to a hundred times as long."""

_COPYING: Final = ThreadPoolExecutor(1, thread_name_prefix="jr-onnx-copy")
_PARSING: Final = ThreadPoolExecutor(1, thread_name_prefix="jr-onnx-parse")
_LOADING: Final = ThreadPoolExecutor(1, thread_name_prefix="jr-onnx-load")
Result = TypeVar("Result")


class Worker(Protocol):
    """Where work is done: `copying`, `parsing`, or what calls them."""

    async def __call__(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return what the function returns."""


async def copying(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns that copies many bytes."""
    return await _done(_COPYING, work, arguments)


async def parsing(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns that looks at many elements, one by one."""
    return await _done(_PARSING, work, arguments)


async def loading(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns that opens models, which takes their weights twice."""
    return await _done(_LOADING, work, arguments)


async def _done(thread: ThreadPoolExecutor, work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    task: list[Any] = [work, arguments]  # emptied when the work begins or is dropped: the queue keeps the list
    del work, arguments
    future = thread.submit(_begin, task)
    answer = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        if future.cancel():
            task.clear()
        while not answer.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([answer])
        raise
    finally:
        del answer, future  # an error holds this frame: the cycle would keep a parsed request until garbage collection


def _begin(task: list[Any]) -> Any:
    arguments, work = task.pop(), task.pop()
    return work(*arguments)
