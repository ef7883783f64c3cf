"""The C library's allocator: memory that the server has released is returned to the system.

By default glibc learns to keep large blocks, and returns small ones only from the end of its heap: what thousands of
connections have left there would stay, in pieces between what is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_LARGE_BLOCK_BYTES: Final = 1 << 20
_KEPT_BYTES: Final = 8 << 20  # at the end of the heap, until the next time that all is returned
_TRIM_S: Final = 1.0


def return_large_blocks() -> None:
    """Make the allocator return large free blocks at once."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)  # setting the other one alone would reset this to far less


async def return_free_pages() -> None:
    """Return every free page of the heap once a second until cancelled, on a thread: it takes a millisecond."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library than glibc
        return
    while True:
        await asyncio.sleep(_TRIM_S)
        await asyncio.to_thread(trim, 0)
