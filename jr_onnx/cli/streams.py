"""Standard streams that never stop the work: what cannot be written is dropped, and noted if it was a result.

If a log reader exits, a disk fills up, or `head` in `jr-onnx ... | head` has read enough, Python raises from whatever
was about to print, in the middle of a shutdown or before a file is written. The streams here, below `print`, click,
rich and logging, ignore that. stderr also never waits long: a reader that stops reading would block a server forever.
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
    """A file descriptor that never raises when written to.

    Args:
        descriptor: Where to write.
        waits: Whether to wait for a slow reader; if not, what is written to a pipe that stays full is lost.

    Attributes:
        failure: The first error other than a reader that closed its end, or None.
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
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written, and report all of it as written."""
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
        """Return whether something can be written, after waiting once; again only after the reader has read."""
        if self._waits:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        ready = bool(waiting.poll(self._patience_ms))
        self._patience_ms = _PATIENCE_MS if ready else 0
        return ready


def protect_standard_streams() -> None:
    """Replace the process's stdout and stderr, and open the null device in place of closed standard streams.

    If the descriptor of stderr were free, the next file to be opened would get it, and native code that reports errors
    there would write into a model or a socket.
    """
    for descriptor in range(_STDERR + 1):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        with contextlib.suppress(OSError):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free place
    # A file's name may hold bytes that are not text; they are written as escapes, in JSON too, and never end a command.
    sys.stdout = _text(UnfailingStream(_STDOUT, waits=True), sys.stdout)
    sys.stderr = _text(UnfailingStream(_STDERR, waits=False), sys.stderr)


def output_failure() -> OSError | None:
    """Return why printed results were lost, other than because the reader closed its end; None if they were not."""
    raw = getattr(sys.stdout, "buffer", None)
    return raw.failure if isinstance(raw, UnfailingStream) else None


def _text(raw: UnfailingStream, old: Any) -> io.TextIOWrapper:
    encoding = getattr(old, "encoding", None) or "utf-8"
    # What the old stream has buffered must not appear later, nor fail at the end of the process. It may be None, or
    # anything that a caller has put there.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        old.flush()
    stream: Any = raw  # of a buffered stream TextIOWrapper uses no more than this class has
    return io.TextIOWrapper(stream, encoding=encoding, errors="backslashreplace", write_through=True)


def _can_fill(descriptor: int) -> bool:
    """Return whether the descriptor is a pipe or a socket, whose reader may stop reading."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
