"""What is released goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Takes 64 MiB in blocks of 32 KiB, releases all but every 64th, and prints by how much resident memory shrinks then.
SCRIPT = """
import asyncio, ctypes
from jr_onnx.serve import allocator

def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
allocator._TRIM_S = 0.01
allocator.return_large_blocks()
blocks = [libc.malloc(32 << 10) for _ in range(2048)]
for block in blocks:
    ctypes.memset(block, 1, 32 << 10)
for number, block in enumerate(blocks):
    if number % 64:
        libc.free(block)
before = resident()

async def a_while():
    task = asyncio.create_task(allocator.return_free_pages())
    await asyncio.sleep(0.2)
    task.cancel()

asyncio.run(a_while())
print((before - resident()) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator is told what to return")
def test_free_pages_between_used_ones_are_returned() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 32, "of 63 MiB that are free"
