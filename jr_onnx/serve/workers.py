"""Work that would block the event loop: it is done on threads, one piece of a kind at a time.

One at a time bounds the memory that a copy or a parsed text takes beside the budget. Parsing JSON has a thread of its
own, because it takes far longer, byte for byte, than copying tensors, which must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

LARGE_BYTES: Final = 2 << 20
"""What is copied in a fraction of a millisecond is copied on the event loop."""

LARGE_TEXT_BYTES: Final = 8 * 1024
"""The same for JSON and typed contents, which take up to a hundred times as long."""

_COPYING: Final = ThreadPoolExecutor(1, thread_name_prefix="jr-onnx-copy")
_PARSING: Final = ThreadPoolExecutor(1, thread_name_prefix="jr-onnx-parse")
_Result = TypeVar("_Result")


async def copying(work: Callable[..., _Result], *arguments: object) -> _Result:
    """Return what a function returns that copies many bytes."""
    return await asyncio.get_running_loop().run_in_executor(_COPYING, work, *arguments)


async def parsing(work: Callable[..., _Result], *arguments: object) -> _Result:
    """Return what a function returns that looks at many elements, one by one."""
    return await asyncio.get_running_loop().run_in_executor(_PARSING, work, *arguments)
