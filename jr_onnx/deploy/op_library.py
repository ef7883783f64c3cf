"""Find the shared library of the custom operator that goes into a package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from jr_onnx.errors import InputError
from jr_onnx.runtime.ops_library import library_path

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.so")
_ELF = b"\x7fELF"


def find_library(path: Path | None, device: Literal["cpu", "gpu"]) -> Path:
    """Return the library to package.

    Args:
        path: The user's choice; None for the one built with this package.
        device: Where the model will run: the CUDA library is for gpu, the CPU library for cpu.

    Raises:
        OpLibraryError: None was named and none is built.
        InputError: The file is no shared library.
    """
    chosen = path or library_path("cuda" if device == "gpu" else "cpu")
    if not chosen.is_file():
        raise InputError(f"the operator library {chosen} does not exist")
    if _FILE_NAME.fullmatch(chosen.name) is None:
        raise InputError(f"the operator library is called {chosen.name!r}, expected a plain name ending in .so")
    with chosen.open("rb") as stream:
        if stream.read(len(_ELF)) != _ELF:
            raise InputError(f"the operator library {chosen} is not a shared library for Linux")
    return chosen
