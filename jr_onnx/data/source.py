"""The one entrance: a specification such as `digits` or `mnist:DIR` becomes labelled images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from jr_onnx.data.block import Block, Source
from jr_onnx.data.cifar10 import Cifar10
from jr_onnx.data.digits import load_digits
from jr_onnx.data.folder import Folder
from jr_onnx.data.images import ImageData
from jr_onnx.data.mnist import Mnist
from jr_onnx.data.npz import Npz
from jr_onnx.data.preprocessing import Layout, Preprocessing
from jr_onnx.data.resizing import Resizing
from jr_onnx.data.splits import check_split, part_of, positions
from jr_onnx.element_types import Array
from jr_onnx.errors import DataError

FORMS: Final = "digits, mnist:DIR, cifar10:DIR, npz:FILE or folder:DIR"
_DARK: Final = 32
_PLAIN: Final[dict[str, Callable[[Path], Source]]] = {"mnist": Mnist, "cifar10": Cifar10}
_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "mnist": {},
    "cifar10": {},
    "npz": {"layout": "layout=NCHW or layout=NHWC", "range": "range=LOW,HIGH"},
    "folder": {"order": "order=number or order=text"},
}


def load(
    spec: str,
    *,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    allow_unlabelled: bool = False,
) -> ImageData:
    """Load labelled images.

    Args:
        spec: `digits` (embedded), `mnist:DIR` (IDX files), `cifar10:DIR` (binary or Python version), `npz:FILE`
            (optionally `npz:FILE?layout=NHWC&range=-1,1`) or `folder:DIR` (PNG and JPEG; optionally `?order=text`).
        split: train, validation or test; see `jr_onnx.data.splits` for how validation is found.
        limit: At most this many, from the front of the split.
        preprocessing: What the model expects; its `size` and `resize` are done here.
        allow_unlabelled: Take an `npz` of images alone, or a folder of pictures without class folders, too; the result
            says so (`ImageData.labelled`).

    Returns:
        The images; only those of the split, up to the limit, are read and kept.

    Raises:
        DataError: The specification is unknown, the data is missing or malformed, or the split is empty.
        MissingExtraError: A folder or resizing needs Pillow, which is not installed.
    """
    part = check_split(split)
    if limit is not None and limit < 1:
        raise DataError(f"found the limit {limit}, expected 1 or more")
    resizing = Resizing(preprocessing)
    if spec == "digits":
        data = load_digits(part, limit)
        return replace(data, pixels=resizing.planes(data.pixels, spec))
    source = _open(spec, resizing, allow_unlabelled=allow_unlabelled)
    name = f"{source.name} ({split})"
    origin = part_of(part, source.parts, source.name)
    block = source.block(origin)
    chosen = positions(part, origin, source.parts, block.fractions, source.name)[:limit]
    if len(chosen) == 0:
        raise DataError(f"{name} is empty: none of {len(block.labels)} images falls into it", hint="Add images")
    pixels = block.read(chosen)
    if not isinstance(source, Folder):  # whose pictures were resized one by one, and may have had many sizes
        pixels = resizing.planes(pixels, name)
    notes = (*block.notes, *_notes(pixels, block))
    return ImageData(
        pixels, block.scale, block.labels[chosen], name, block.class_names, chosen, block.range, notes, block.labelled
    )


def _notes(pixels: Array, block: Block) -> Iterator[str]:
    if pixels.dtype.kind == "u" and pixels.max() < _DARK:
        most = int(pixels.max())
        yield (
            f"the brightest pixel is {most} of 255; if {most} stands for full brightness, store floats from 0 to 1 or, "
            f"in an .npz file, say npz:FILE?range=0,{most}"
        )
    low, high = block.range
    if (low, high) != (0.0, 1.0):
        yield (
            f"the features reach from {low:g} to {high:g}; the model gets them as they are, and eps is a share of that "
            f"range: 0.1 is {0.1 * (high - low):g}"
        )


def _open(spec: str, resizing: Resizing, *, allow_unlabelled: bool) -> Source:
    kind, colon, rest = spec.partition(":")
    if not colon or not rest or kind not in _OPTIONS:
        raise DataError(f"found the data specification {spec!r}, expected {FORMS}")
    file, options = _split(kind, rest)
    path = Path(file).expanduser()
    if kind == "folder":
        by_text = _choice(options, "order", ("number", "text")) == "text"
        return Folder(path, resizing, by_text=by_text, allow_unlabelled=allow_unlabelled)
    if kind == "npz":
        layouts: dict[str | None, Layout] = {"NCHW": "NCHW", "NHWC": "NHWC"}
        layout = layouts.get(_choice(options, "layout", ("NCHW", "NHWC")))
        return Npz(path, layout, _range(options), allow_unlabelled=allow_unlabelled)
    return _PLAIN[kind](path)


def _split(kind: str, rest: str) -> tuple[str, dict[str, str]]:
    """Part a path from its options, as FILE?layout=NHWC&range=-1,1; a path may hold question marks of its own."""
    file, mark, text = rest.rpartition("?")
    if not mark or "=" not in text:
        return rest, {}
    options: dict[str, str] = {}
    for word in text.replace(";", "&").split("&"):
        key, _, value = word.partition("=")
        if key not in _OPTIONS[kind] or key in options:
            expected = " or ".join(_OPTIONS[kind].values()) or "none"
            raise DataError(f"found the option {word!r} of {kind}, expected {expected}")
        options[key] = value
    return file, options


def _choice(options: dict[str, str], key: str, known: tuple[str, ...]) -> str | None:
    value = options.get(key)
    if value is not None and value not in known:
        raise DataError(f"found the option {key}={value}, expected {' or '.join(f'{key}={word}' for word in known)}")
    return value


def _range(options: dict[str, str]) -> tuple[float, float] | None:
    if "range" not in options:
        return None
    try:
        low, high = (float(word) for word in options["range"].split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"found the option range={options['range']}, expected range=LOW,HIGH, for instance range=-1,1")
    return low, high
