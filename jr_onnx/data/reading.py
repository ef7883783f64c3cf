"""Guards around files that may be anything: every failure becomes one DataError, sizes are bounded."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from jr_onnx.errors import DataError, JrError
from jr_onnx.foreign import head_of, recognise

# The most that one array may take after decompression. A file says its size before it is read; a file that says
# more is refused, and a compressed file is never read beyond what it said.
MAX_BYTES: Final = 4 << 30


@contextmanager
def reading(path: Path, what: str, own: bytes | tuple[bytes, ...] = b"\0") -> Iterator[None]:
    """Turn whatever a parser raises on a malformed file into a DataError that names the file, and what it really is.

    The parsers of the standard library and of Pillow raise a dozen kinds on malformed input (struct.error,
    zlib.error, EOFError, SyntaxError, MemoryError and others); none of them says which file it was.

    Args:
        path: The file.
        what: What it should be.
        own: What a file of the right kind begins with, which a damaged one may still begin with.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is a pipe or a device, expected {what}", hint="Write it to a file first")
    try:
        yield
    except JrError:
        _refuse_foreign(path, what, own)
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, expected {what}", hint="Check the path") from None
    except Exception as error:  # noqa: BLE001 - see the docstring
        _refuse_foreign(path, what, own)
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"cannot read {path} as {what}: {reason}", hint="The file is damaged or of another kind"
        ) from None


def _refuse_foreign(path: Path, what: str, own: bytes | tuple[bytes, ...]) -> None:
    head = head_of(path)
    found = recognise(head)
    if found is not None and not head.startswith(own):
        raise DataError(f"{path} is {found[0]}, expected {what}", hint=found[1]) from None


def check_shape(path: Path, shape: Sequence[int], item_bytes: int) -> int:
    """Return the number of bytes of an array, or refuse one that is empty.

    Raises:
        DataError: An axis is empty.
    """
    if any(side < 1 for side in shape):
        raise DataError(f"{path} holds an array of shape {tuple(shape)}, which is empty")
    return math.prod(shape) * item_bytes


def check_memory(path: Path, size: int) -> None:
    """Refuse to hold more than `MAX_BYTES` of one file in memory; mapped files need no such bound.

    Raises:
        DataError: It is more.
    """
    if size > MAX_BYTES:
        raise DataError(
            f"{path} announces {size} bytes of data, expected at most {MAX_BYTES}",
            hint="The file is damaged, or has to be stored uncompressed or cut into smaller ones",
        )


def read_exactly(stream: IO[bytes], size: int, path: Path) -> bytearray:
    """Read `size` bytes and make sure that nothing follows; memory grows with what is really there.

    Raises:
        DataError: The stream ends too early or is too long.
    """
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(size - len(content), 1 << 22))
        if not chunk:
            raise DataError(f"{path} is truncated: found {len(content)} bytes of data, expected {size}")
        content += chunk
    if stream.read(1):
        raise DataError(f"{path} goes on after the {size} bytes of data that it announces")
    return content


def map_bytes(path: Path, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map an uncompressed file of bytes, the last byte of which ends the array.

    Raises:
        DataError: The file has another size.
    """
    size, expected = path.stat().st_size, offset + check_shape(path, shape, 1)
    if size != expected:
        word = "truncated" if size < expected else "too long"
        raise DataError(f"{path} is {word}: found {size} bytes, expected {expected} for the shape {shape}")
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def open_plain_or_gzip(path: Path) -> IO[bytes]:
    """Open a file, through gzip where its name ends so."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def find_folder(folder: Path, below: Sequence[str], kind: str) -> Path:
    """Return the folder that holds the files, or refuse what is not a folder.

    Args:
        folder: What the user named.
        below: Usual sub-folders; the first one that exists is returned in place of `folder`.
        kind: For the error.

    Raises:
        DataError: It is not a folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder, expected one with {kind} files", hint="Check the path")
    return next((folder / name for name in below if (folder / name).is_dir()), folder)


def check_labels(path: Path, labels: NDArray[np.int64], classes: int) -> None:
    """Refuse labels outside [0, classes).

    Raises:
        DataError: There is one.
    """
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        where = int(bad[0])
        raise DataError(f"{path}: item {where} has the label {int(labels[where])}, expected 0 to {classes - 1}")
