"""Write files so that a crash or a full disk leaves the old one: temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from jr_onnx.errors import ModelError, OutputError
from jr_onnx.modelfile.wire import Payload, Payloads, WireError, join
from jr_onnx.opened import FileView, pieces

_PROTOBUF_LIMIT = 2**31 - 1
_PART = ".part"
_NAME_KEPT = 40
_ABANDONED_SECONDS = 3600


def save(proto: onnx.ModelProto, payloads: Payloads, path: Path) -> None:
    """Write a model atomically, its payloads put back.

    Raises:
        OutputError: The folder is missing, or the file cannot be written.
        ModelError: The file that holds the payloads was changed since it was opened.
    """
    try:
        chunks = join(proto.SerializeToString(deterministic=True), payloads)
        with atomic_path(path) as temporary:
            write_chunks(temporary, chunks)
            payloads.require_unchanged()
    except WireError as error:
        raise OutputError(f"cannot write {path}: {error}", hint="Nothing was changed") from None


def content_digest(proto: onnx.ModelProto, payloads: Payloads) -> tuple[str, int]:
    """Return SHA-256 and length of the bytes that `save` would write."""
    digest, length = hashlib.sha256(), 0
    for chunk in join(proto.SerializeToString(deterministic=True), payloads):
        length += len(chunk)
        for part in pieces(chunk):
            digest.update(part)
    return digest.hexdigest(), length


def assemble(proto: onnx.ModelProto, payloads: Payloads) -> onnx.ModelProto:
    """Return the model with its payloads in it, for use in memory; the argument itself where it has none.

    Raises:
        ModelError: The model exceeds protobuf's 2 GB, or the file that holds the payloads was changed.
    """
    return onnx.ModelProto.FromString(serialised(proto, payloads)) if payloads else proto


def serialised(proto: onnx.ModelProto, payloads: Payloads) -> bytes:
    """Return the bytes that `save` would write.

    Raises:
        ModelError: They exceed protobuf's 2 GB, or the file that holds the payloads was changed.
    """
    chunks = join(proto.SerializeToString(deterministic=True), payloads)
    total = sum(len(chunk) for chunk in chunks)
    if total > _PROTOBUF_LIMIT:
        raise ModelError(
            f"the model has {total} bytes without external data, more than the 2 GB that protobuf can hold in memory",
            hint="Save its weights as external data (onnx.save with save_as_external_data)",
        )
    content = b"".join(part for chunk in chunks for part in pieces(chunk))
    payloads.require_unchanged()
    return content


def atomic_write(path: Path, chunks: Iterable[Payload]) -> None:
    """Write chunks to a file that appears whole or not at all.

    Raises:
        OutputError: The folder is missing, or the file cannot be written.
    """
    with atomic_path(path) as temporary:
        write_chunks(temporary, chunks)


def write_chunks(path: Path, chunks: Iterable[Payload]) -> None:
    """Write chunks to a file, and wait until they are on the disk."""
    with path.open("wb") as stream:
        for chunk in chunks:
            if isinstance(chunk, FileView):
                chunk.copy_to(stream)
            else:
                stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place on success, remove it on failure.

    What an earlier process left behind that was killed while it wrote the same file is removed first.

    Raises:
        OutputError: The folder is missing, or the file cannot be written.
    """
    folder = path.parent
    temporary: Path | None = None
    handle: int | None = None
    try:
        refuse_target(path)
        prefix = f".{path.name[:_NAME_KEPT]}."
        _remove_abandoned(folder, prefix)
        handle, name = tempfile.mkstemp(prefix=f"{prefix}{os.getpid()}-", suffix=_PART, dir=folder)
        temporary = Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # mkstemp makes the file private; the result gets what the user's umask says, as any other file does.
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        temporary.replace(path)
        _sync_folder(folder)
    except OSError as error:
        raise _explain(error, path) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the temporary files of writers that are gone: nothing holds their lock, and the process does not exist."""
    for path in [item for item in folder.iterdir() if item.name.startswith(prefix) and item.name.endswith(_PART)]:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                writer = path.name[len(prefix) :].partition("-")[0]
                # Another machine may write to the same folder, whose processes are not known here.
                old = time.time() - os.fstat(handle).st_ctime > _ABANDONED_SECONDS
                if old or (writer.isdecimal() and not Path("/proc", writer).exists()):
                    path.unlink()
            finally:
                os.close(handle)


def refuse_target(path: Path) -> None:
    """Refuse what cannot become a file, above all a device or a pipe: the rename would put a file in its place.

    Raises:
        OutputError: No file can be written to the path.
    """
    folder = path.parent
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(f"the folder {folder} {found}", hint="Create it or choose another output (-o)")
    if path.is_dir():
        raise OutputError(f"{path} is a directory, expected a file name", hint="Choose another output (-o)")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is a device or a pipe, expected a file name", hint="Choose another output (-o)")


def _explain(error: OSError, path: Path) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(f"cannot write {path}: the disk is full", hint="Nothing was changed; free some space")
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint="Nothing was changed")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the file system allows opening a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
