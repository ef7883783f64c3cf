"""Recognise a file of the wrong kind: the files that are most often given in place of models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 512
"""How much of the front of a file is looked at; tar has its mark at 257."""

_LFS: Final = (b"version https://git-lfs.github.com", b"version https://hawser.github.com")
_EXPORT: Final = "Export it to ONNX first"
_UNPACK: Final = "Unpack it, and give the file inside"
# What the file begins with, what it then is, and what to do.
_KINDS: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PK\x03\x04", "a zip archive (or a torch checkpoint, which is one)", "Unpack it; a checkpoint is exported first"),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights are such)", _EXPORT),
    (b"\x93NUMPY", "a .npy file of one array", "Save images and labels together with np.savez"),
    (b"\x89PNG", "a PNG picture", "Give the intended file"),
    (b"\xff\xd8\xff", "a JPEG picture", "Give the intended file"),
    (b"%PDF", "a PDF document", "Give the intended file"),
    (b"\x80\x02", "a Python pickle", _EXPORT),
    (b"\x80\x04", "a Python pickle", _EXPORT),
)


def pointer(head: bytes) -> tuple[str, str] | None:
    """Recognise a placeholder of a file that was not downloaded: never a model nor data.

    Args:
        head: The first `HEAD_BYTES` bytes.

    Returns:
        What it is, and what to do; None where it is not one.
    """
    if head.startswith(_LFS):
        return "a Git LFS pointer, not the file itself", "Run `git lfs pull` in its repository to download the file"
    if b"/annex/objects/" in head and len(head) < HEAD_BYTES:
        return "a git-annex pointer, not the file itself", "Run `git annex get` in its repository to download the file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")):
        kind = "an XML document" if start.startswith((b"<?xml", b"<error")) else "an HTML page"
        return kind, "The download went wrong: use the link to the raw file"
    return None


def recognise(head: bytes) -> tuple[str, str] | None:
    """Recognise a pointer, a page, or a file of a common kind; see `pointer`."""
    found = pointer(head)
    if found is not None:
        return found
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _EXPORT
    if head[4:8] == b"ORTM":
        return "a model in ONNX Runtime's own format (.ort)", "Give the .onnx file that it was made from"
    return next(((what, remedy) for mark, what, remedy in _KINDS if head.startswith(mark)), None)


def head_of(path: Path) -> bytes:
    """Return the front of a file, nothing where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError):  # a name may hold what no path does
        return b""
