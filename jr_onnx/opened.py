"""Files that others may change: opened once, checked, and read without assuming that they stay the same.

A mapped file that is truncated kills the process with SIGBUS, opening a pipe in place of a file blocks forever, and a
path may mean another file the next time. So a file is opened once, without blocking; it must be a regular file; it is
read with plain reads, which report missing bytes; and a change in the meantime is detected.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, overload

from jr_onnx.errors import ModelError

_PIECE_BYTES = 1 << 20  # stays in a processor's cache between being read and being hashed or written
_COPIED_BYTES = 64 << 20
_WINDOW_BYTES = 64 << 10


class OpenedFile:
    """A regular file that was opened for reading.

    Args:
        path: The file.
        what: What it should be, for messages.
        named: What messages call it, where it is a copy.
        follow: Whether the path may end in a symbolic link.

    Raises:
        ModelError: There is none, it cannot be read, or it is not a regular file.
    """

    def __init__(
        self, path: Path, what: str = "an ONNX model", *, named: Path | None = None, follow: bool = True
    ) -> None:
        self.shown = named or path
        # Without O_NONBLOCK opening a pipe waits for a writer, and opening a terminal may take it over.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, flags)
            self._status = os.fstat(self._descriptor)
        except FileNotFoundError:
            raise ModelError(f"{self.shown} does not exist", hint="Check the path") from None
        except (OSError, ValueError) as error:
            if not follow and Path(path).is_symlink():
                raise ModelError(f"{self.shown} is a symbolic link, expected a regular file") from None
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ModelError(f"cannot read {self.shown}: {reason}") from None
        if stat.S_ISDIR(self._status.st_mode):
            raise ModelError(f"{self.shown} is a directory, expected {what} file")
        if not stat.S_ISREG(self._status.st_mode):
            raise ModelError(
                f"{self.shown} is not a regular file, expected {what} file", hint="Write it to a file first"
            )
        self._window = b""
        self._window_start = 0

    def __del__(self) -> None:
        """Close the file with the last view of it."""
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor, which is this object's."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Size in bytes when it was opened."""
        return self._status.st_size

    @property
    def mode(self) -> int:
        """Permissions and type when it was opened."""
        return self._status.st_mode

    @property
    def owner(self) -> int:
        """The user that owns it."""
        return self._status.st_uid

    def view(self) -> FileView:
        """Return a view of the whole file; nothing is read yet."""
        return FileView(self, 0, self.size)

    def read(self, start: int, count: int) -> bytes:
        """Read bytes.

        Raises:
            ModelError: They are gone, or the disk cannot read them.
        """
        try:
            data = os.pread(self._descriptor, count, start)
        except OSError as error:
            raise ModelError(f"cannot read {self.shown}: {error.strerror}") from None
        if len(data) == count:
            return data
        rest = bytearray(count)  # Linux reads 2 GB at a time
        rest[: len(data)] = data
        self.read_into(start + len(data), memoryview(rest)[len(data) :])
        return bytes(rest)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill memory with bytes of the file; see `read`."""
        done = 0
        try:
            while done < len(target):
                count = os.preadv(self._descriptor, [target[done : done + _PIECE_BYTES]], start + done)
                if count == 0:
                    raise ModelError(f"{self.shown} became shorter while it was read", hint="Try again")
                done += count
        except OSError as error:
            raise ModelError(f"cannot read {self.shown}: {error.strerror}") from None

    def copy_to(self, target: BinaryIO, start: int, count: int) -> None:
        """Append bytes to another file, inside the kernel where the file systems can, so that none pass through here.

        Raises:
            ModelError: They are gone, or the disk cannot read them.
            OSError: They cannot be written.
        """
        target.flush()
        done = 0
        while done < count:
            try:
                copied = os.copy_file_range(
                    self._descriptor, target.fileno(), min(_COPIED_BYTES, count - done), start + done
                )
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                break
            if copied == 0:
                break  # at the end, or on a file system that reports no sizes
            done += copied
        for part in FileView(self, start + done, start + count).pieces():
            target.write(part)

    def byte(self, position: int) -> int:
        """Return one byte; those around it are read with it."""
        offset = position - self._window_start
        if not 0 <= offset < len(self._window):
            self._window = self.read(position, min(_WINDOW_BYTES, self.size - position))
            self._window_start, offset = position, 0
        return self._window[offset]

    def read_private(self) -> memoryview:
        """Return all bytes in memory that no other process can change.

        Raises:
            ModelError: The file became shorter, or is larger than this machine's memory.
        """
        if self.size > _memory_bytes():
            raise ModelError(f"{self.shown} has {self.size} bytes, more than this machine's memory holds")
        if self.size == 0:
            return memoryview(b"")
        view = memoryview(mmap.mmap(-1, self.size))
        self.read_into(0, view)
        return view.toreadonly()

    def require_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened.

        Raises:
            ModelError: It was.
        """
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise ModelError(f"{self.shown} was changed while it was read", hint="Try again when nothing writes it")


class FileView:
    """A part of an opened file, read on demand; in use much like a memoryview of bytes.

    Args:
        file: The file.
        start: First byte.
        end: The byte after the last.
    """

    def __init__(self, file: OpenedFile, start: int, end: int) -> None:
        self.file = file
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, item: int) -> int: ...

    @overload
    def __getitem__(self, item: slice) -> FileView: ...

    def __getitem__(self, item: int | slice) -> int | FileView:
        if isinstance(item, int):
            if not 0 <= item < len(self):
                raise IndexError(item)
            return self.file.byte(self._start + item)
        first, last, _ = item.indices(len(self))
        return FileView(self.file, self._start + first, self._start + max(first, last))

    def tobytes(self) -> bytes:
        """Read the part into memory."""
        return self.file.read(self._start, len(self))

    def copy_to(self, target: BinaryIO) -> None:
        """Append the part to another file; see `OpenedFile.copy_to`."""
        self.file.copy_to(target, self._start, len(self))

    def pieces(self) -> Iterator[bytes]:
        """Read the part piece by piece."""
        for start in range(self._start, self._end, _PIECE_BYTES):
            yield self.file.read(start, min(_PIECE_BYTES, self._end - start))


def pieces(data: bytes | memoryview | FileView) -> Iterator[bytes | memoryview]:
    """Yield bytes in pieces that fit into memory wherever they come from."""
    if isinstance(data, FileView):
        yield from data.pieces()
    else:
        yield data


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
