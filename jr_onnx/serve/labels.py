"""The labels of a packaged model, read as carefully as the model: once, and compared with the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from jr_onnx.deploy.textproto import quote
from jr_onnx.deploy.triton_config import CONFIG_NAME, LABELS_NAME
from jr_onnx.errors import IntegrityError, ModelError
from jr_onnx.opened import OpenedFile

_MOST_BYTES = 64 << 20
_OUTPUT = "\noutput {\n"  # as `config_text` writes it


def read_labels(folder: Path, digests: Mapping[str, str], outputs: Iterable[str]) -> dict[str, list[str]]:
    """Return the labels of the output that the package has them for, by its name; nothing where it has none.

    Args:
        folder: The model's folder in the repository.
        digests: SHA-256 of the files in it, by name.
        outputs: Names of the model's outputs.

    Raises:
        ModelError: A file is missing or no text.
        IntegrityError: It is not the one that the manifest names.
    """
    if LABELS_NAME not in digests:
        return {}
    parts = _read(folder, CONFIG_NAME, digests).split(_OUTPUT)[1:]
    blocks = [part.partition("\n}\n")[0] for part in parts]
    wanted = f"label_filename: {quote(LABELS_NAME)}"
    labels = _read(folder, LABELS_NAME, digests).removesuffix("\n").split("\n")
    return {
        name: labels
        for name in outputs
        if any(f"  name: {quote(name)}\n" in f"{block}\n" and wanted in block for block in blocks)
    }


def _read(folder: Path, name: str, digests: Mapping[str, str]) -> str:
    path = folder / name
    file = OpenedFile(path, "a text", follow=False)
    if file.size > _MOST_BYTES:
        raise ModelError(f"{path} has {file.size} bytes, expected at most {_MOST_BYTES}")
    data = file.read(0, file.size)
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise IntegrityError(f"{path} does not match its manifest: it was changed since it was verified")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not UTF-8, expected a text") from None
