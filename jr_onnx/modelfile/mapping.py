"""Views of a file that is mapped into memory, read in slices whose pages are given back, so that memory stays small."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_SLICE_BYTES = 16 << 20


def map_file(path: Path) -> memoryview:
    """Map a file that is not empty.

    Raises:
        OSError: The file cannot be opened or mapped.
    """
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def slices(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """Yield the bytes in slices; the pages of a mapped file are given back once a slice has been used."""
    if len(data) <= _SLICE_BYTES:
        yield data
        return
    owner = data.obj if isinstance(data, memoryview) else None
    for start in range(0, len(data), _SLICE_BYTES):
        yield data[start : start + _SLICE_BYTES]
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)
