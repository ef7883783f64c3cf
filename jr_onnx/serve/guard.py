"""Keep everything else off the GPU while a CUDA graph is captured.

ONNX Runtime captures in CUDA's global mode: whatever another thread of the process asks of the GPU in the meantime,
memory or a copy, may fail, and spoil the capture.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class Guard:
    """A readers-writer lock that prefers writers: many threads hold it together, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._alone = False
        self._waiting = 0  # to have it alone

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold it along with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone; a thread that holds it already would wait for ever."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._together)
                self._alone = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


GPU: Final = Guard()
"""The one of this process."""
