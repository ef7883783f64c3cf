"""The one entrance: a specification such as `digits` or `mnist:DIR` becomes labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from jr_onnx.data.block import Source
from jr_onnx.data.cifar10 import Cifar10
from jr_onnx.data.digits import load_digits
from jr_onnx.data.folder import Folder
from jr_onnx.data.images import ImageData
from jr_onnx.data.mnist import Mnist
from jr_onnx.data.npz import Npz
from jr_onnx.data.preprocessing import Layout
from jr_onnx.data.splits import check_split, part_of, positions
from jr_onnx.errors import DataError

FORMS: Final = "digits, mnist:DIR, cifar10:DIR, npz:FILE or folder:DIR"
_SOURCES: Final[dict[str, Callable[[Path], Source]]] = {"mnist": Mnist, "cifar10": Cifar10, "folder": Folder}


def load(spec: str, *, split: str = "test", limit: int | None = None) -> ImageData:
    """Load labelled images.

    Args:
        spec: `digits` (embedded), `mnist:DIR` (IDX files), `cifar10:DIR` (binary or Python version), `npz:FILE`
            (optionally `npz:FILE?layout=NHWC`) or `folder:DIR` (PNG and JPEG).
        split: train, validation or test; see `jr_onnx.data.splits` for how validation is found.
        limit: At most this many, from the front of the split.

    Returns:
        The images; only those of the split, up to the limit, are read and kept.

    Raises:
        DataError: The specification is unknown, the data is missing or malformed, or the split is empty.
        MissingExtraError: A folder needs Pillow, which is not installed.
    """
    part = check_split(split)
    if limit is not None and limit < 1:
        raise DataError(f"found the limit {limit}, expected 1 or more")
    if spec == "digits":
        return load_digits(part, limit)
    source = _open(spec)
    name = f"{source.name} ({split})"
    origin = part_of(part, source.parts, source.name)
    block = source.block(origin)
    chosen = positions(part, origin, source.parts, block.fractions, source.name)[:limit]
    if len(chosen) == 0:
        raise DataError(f"{name} is empty: none of {len(block.labels)} images falls into it", hint="Add images")
    return ImageData(block.read(chosen), block.scale, block.labels[chosen], name, block.class_names, chosen)


def _open(spec: str) -> Source:
    kind, colon, rest = spec.partition(":")
    if not colon or not rest or kind not in {*_SOURCES, "npz"}:
        raise DataError(f"found the data specification {spec!r}, expected {FORMS}")
    if kind != "npz":
        return _SOURCES[kind](Path(rest).expanduser())
    file, mark, option = rest.rpartition("?")
    if not mark:
        return Npz(Path(rest).expanduser())
    layouts: dict[str, Layout] = {"layout=NCHW": "NCHW", "layout=NHWC": "NHWC"}
    if option not in layouts:
        raise DataError(f"found the option {option!r} of npz, expected layout=NCHW or layout=NHWC")
    return Npz(Path(file).expanduser(), layouts[option])
