r"""One array inside an .npz file, read without NumPy's loader, which would unpickle or allocate what a header says.

An .npz file is a zip archive of .npy members. A member: magic `\x93NUMPY`, version, header length, a header that is
the text of a dictionary with the keys descr, fortran_order and shape, then the elements. NumPy always writes the
header in one form, and only that form is read: no Python expression is evaluated.
"""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from jr_onnx.data.reading import check_memory, check_shape, read_exactly
from jr_onnx.element_types import Array
from jr_onnx.errors import DataError

_MAGIC: Final = b"\x93NUMPY"
_HEADER: Final = re.compile(
    r"\{'descr': '(?P<kind>[<>|=]?[biufcSUVO]\d*)', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, ]*)\), \}\s*"
)
_LONGEST_HEADER: Final = 10_000
_MOST_AXES: Final = 8
_LOCAL_HEADER: Final = 30


@dataclass(frozen=True)
class _Header:
    kind: np.dtype[np.generic]
    fortran: bool
    shape: tuple[int, ...]
    length: int


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    """Read the array `name`; an uncompressed member in C order is mapped.

    Args:
        archive: The open .npz file.
        name: Name of the array, without .npy.
        path: Path of the archive, for mapping and for errors.

    Raises:
        DataError: An object array, a structured type, truncated, absurdly large.
    """
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        header = _read_header(stream, f"{path}: {name}")
        size = check_shape(path, header.shape, header.kind.itemsize) if header.shape else header.kind.itemsize
        if header.length + size != info.file_size:
            raise DataError(
                f"{path}: the array {name!r} announces {header.length + size} bytes, the archive holds {info.file_size}"
            )
        stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if stored and header.shape and not header.fortran:
            return _map(path, info, header)
        check_memory(path, size)
        content = read_exactly(stream, size, path)
    array = np.frombuffer(content, dtype=header.kind)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _read_header(stream: IO[bytes], where: str) -> _Header:
    start = stream.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise DataError(f"{where} is no NumPy array: found the first bytes {start.hex()}")
    width = 2 if start[6] == 1 else 4
    prefix = stream.read(width)
    (length,) = struct.unpack("<H" if width == 2 else "<I", prefix)
    if length > _LONGEST_HEADER:
        raise DataError(f"{where} has a header of {length} bytes, expected at most {_LONGEST_HEADER}")
    text = stream.read(length)
    match = _HEADER.fullmatch(text.decode("latin1"))
    if match is None or len(text) < length:
        raise DataError(f"{where} has a header that describes no plain array", hint="Structured types are not readable")
    if match["kind"].lstrip("<>|=").startswith("O"):
        raise DataError(
            f"{where} is an array of Python objects, which are never loaded",
            hint="Save it with a number type: array.astype('uint8')",
        )
    numbers = [part.strip() for part in match["shape"].split(",")]
    shape = tuple(int(part) for part in numbers if part)
    if len(shape) > _MOST_AXES:
        raise DataError(f"{where} has {len(shape)} axes, expected at most {_MOST_AXES}")
    kind: np.dtype[np.generic] = np.dtype(match["kind"])
    if kind.kind not in "biufUS" or kind.itemsize < 1:
        raise DataError(f"{where} has elements of type {kind}, expected numbers or text")
    return _Header(kind, match["fortran"] == "True", shape, 8 + width + length)


def _map(path: Path, info: zipfile.ZipInfo, header: _Header) -> Array:
    # The local header's two variable lengths may differ from those of the central directory.
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    offset = info.header_offset + _LOCAL_HEADER + name_length + extra_length + header.length
    return np.memmap(path, dtype=header.kind, mode="r", offset=offset, shape=header.shape)
