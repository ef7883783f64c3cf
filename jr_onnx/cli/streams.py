"""Standard streams that never stop the work: what cannot be said is dropped, and noted where it was a result.

A log reader goes away, a log disk fills up, `jr-onnx ... | head` has seen enough: Python raises from whatever was about
to print, in the middle of a drain or before a file is written. Here the streams underneath `print`, click, rich and
logging swallow that. stderr also never waits long: a reader that has stopped reading would hold a server up for good.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PIECE_BYTES = select.PIPE_BUF  # what a pipe that is ready takes at once
_PATIENCE_MS = 250
_STDOUT, _STDERR = 1, 2
_GONE = (errno.EPIPE, errno.ECONNRESET)


class UnfailingStream(io.RawIOBase):
    """A file descriptor whose writer never hears of an error.

    Args:
        descriptor: Where to write.
        waits: Whether to wait as long as a reader takes; without, a pipe that stays full loses what is written.

    Attributes:
        failure: The first error that was no reader's going away, or None.
    """

    def __init__(self, descriptor: int, *, waits: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waits = waits or not _can_fill(descriptor)
        self._patience_ms = _PATIENCE_MS
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written, and say that all was."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._has_room():
                left = left[os.write(self._descriptor, left[:_PIECE_BYTES]) :]
        except OSError as error:
            if error.errno not in _GONE and self.failure is None:
                self.failure = error
        return size

    def _has_room(self) -> bool:
        """Tell whether something can be written without waiting; patient once, until the reader reads again."""
        if self._waits:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        ready = bool(waiting.poll(self._patience_ms))
        self._patience_ms = _PATIENCE_MS if ready else 0
        return ready


def protect_standard_streams() -> None:
    """Replace the process's stdout and stderr, and fill the places of streams that are closed.

    Were the place of stderr free, the next file to be opened would take it, and native code that complains there would
    write into a model or a socket.
    """
    for descriptor in range(_STDERR + 1):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        with contextlib.suppress(OSError):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free place
    # A file's name may hold bytes that are no text; they are shown as escapes, in JSON too, and never end a command.
    sys.stdout = _text(UnfailingStream(_STDOUT, waits=True), sys.stdout)
    sys.stderr = _text(UnfailingStream(_STDERR, waits=False), sys.stderr)


def output_failure() -> OSError | None:
    """Return why results that were printed did not arrive, a reader's going away aside; None where they did."""
    raw = getattr(sys.stdout, "buffer", None)
    return raw.failure if isinstance(raw, UnfailingStream) else None


def _text(raw: UnfailingStream, old: object) -> io.TextIOWrapper:
    encoding = getattr(old, "encoding", None) or "utf-8"
    # What the old stream still holds must not come later, nor fail at the end of the process.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        old.flush()  # type: ignore[attr-defined] # whatever stood there before
    stream: Any = raw  # of a buffered stream TextIOWrapper uses no more than this class has
    return io.TextIOWrapper(stream, encoding=encoding, errors="backslashreplace", write_through=True)


def _can_fill(descriptor: int) -> bool:
    """Tell whether the descriptor is a pipe or a socket, whose reader may stop reading."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
