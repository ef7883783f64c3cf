"""Build a folder aside, flush it to disk, and put it in place in one step.

    with staging(repository) as aside:      # a hidden sibling on the same file system
        ... write aside / "digits" ...
        sync_tree(aside / "digits")
        publish(aside / "digits", repository / "digits", replace=False)

Whatever fails or crashes before `publish` leaves the old state; `publish` is one rename (or, to replace, one
exchange of two names), so half a folder is never visible. After a crash a hidden folder `.jr_onnx-*` may be left
behind; it can be deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jr_onnx.errors import OutputError

STAGING_PREFIX = ".jr_onnx-"
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield an empty hidden folder from which a rename into `target` or to its name works; remove it afterwards.

    It is a sibling of `target`, or lies inside it where the sibling cannot be written or is another file system
    (a mount point).

    Raises:
        OutputError: Neither place can be written.
    """
    aside = _make_aside(target)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def publish(staged: Path, target: Path, *, replace: bool) -> None:
    """Put a staged folder in place; with `replace`, the old one takes its place in the staging folder.

    Raises:
        OutputError: The target exists and `replace` is false, or the rename fails.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if replace:
            _exchange(staged, target)
        else:
            _move_to_new_name(staged, target)
        _sync_folder(target.parent)
    except FileExistsError:
        raise OutputError(f"{target} already exists", hint="Use --force to replace it") from None
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(f"{target} already exists", hint="Use --force to replace it") from None
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def sync_tree(folder: Path) -> None:
    """Flush every file and folder of a tree to disk (fsync)."""
    for current, _, files in os.walk(folder):
        for name in files:
            _sync(Path(current, name), os.O_RDONLY)
        _sync_folder(Path(current))


def _make_aside(target: Path) -> Path:
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            if target.stat().st_dev == parent.stat().st_dev and os.access(parent, os.W_OK):
                return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
            return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target))
        return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def _move_to_new_name(source: Path, target: Path) -> None:
    """Rename without ever replacing; rename(2) alone would replace an empty folder."""
    try:
        _renameat2(source, target, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)


def _exchange(source: Path, target: Path) -> None:
    """Swap two folders; where the file system cannot, move the old one away, and back if that fails."""
    try:
        _renameat2(source, target, _RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        old = source.with_name(source.name + ".old")
        target.rename(old)
        try:
            source.rename(target)
        except OSError:
            old.rename(target)
            raise


def _renameat2(source: Path, target: Path, flags: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _sync_folder(folder: Path) -> None:
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
