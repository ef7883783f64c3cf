"""Adversarial examples for a page: before, after, and what changed, as data URIs with their descriptions."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import require
from jr_onnx.evaluation.examples import Example, ExampleSet, Images
from jr_onnx.evaluation.scores import NO_ANSWER
from jr_onnx.report.svg import reds

MOST_BYTES = 1_900_000
"""Of all pictures of a page together, as data URIs."""

_LARGEST = 96
_KINDS = {"least robust": "Easiest to fool", "most robust": "Hardest to fool"}


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        uri: A PNG as a data URI.
        alt: What it shows.
        caption: One word below it.
    """

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Row:
    """The pictures of one image.

    Attributes:
        pictures: Before the attack, after it, and the change.
        words: What they show.
    """

    pictures: tuple[Picture, ...]
    words: str


@dataclass(frozen=True)
class Group:
    """Images that were the easiest, or the hardest, to fool."""

    title: str
    rows: tuple[Row, ...]


def groups(found: ExampleSet, eps: float) -> dict[str, list[Group]]:
    """Return the examples by attacker, and for each by how robust they are, in their order.

    Args:
        found: The examples.
        eps: The budget, in pixel scale.

    Raises:
        MissingExtraError: matplotlib or Pillow is not installed.
    """
    encode = encoder(3 * len(found.table.examples))
    rows: dict[str, dict[str, list[Row]]] = {}
    for example, clean, adversarial in zip(found.table.examples, found.clean, found.adversarial, strict=True):
        members = rows.setdefault(example.choice.attacker, {}).setdefault(_KINDS[example.choice.kind], [])
        members.append(_row(example, found.table.class_names, eps, clean, adversarial, encode))
    return {
        attacker: [Group(title, tuple(members)) for title, members in kinds.items()] for attacker, kinds in rows.items()
    }


def words(example: Example, names: Sequence[str], eps: float) -> str:
    """Say what became of an image: true class, what the network says after the attack, and how much was changed.

    Args:
        example: The image.
        names: Name of every class.
        eps: The budget, in pixel scale.
    """
    choice, truth = example.choice, _class(example.label, names)
    size = _size(example.norm, example.distance)
    if not example.fooled:
        return (
            f"Image {choice.index}, {truth}: none of this attacker's attacks fools the {choice.model}. "
            f"The attempt of {choice.entry} is shown ({size})."
        )
    said = "" if example.answer == example.label else f"says {_class(example.answer, names)} after"
    text = f"Image {choice.index}, {truth}: the {choice.model} {said or 'is wrong in most of its runs after'}"
    beyond = f", beyond the budget of {eps:.4g}" if example.distance > eps * (1 + 1e-6) else ""
    text = f"{text} {choice.entry} ({size}{beyond})."
    if example.other_answer is None:
        return text
    same = "too" if example.other_answer == example.answer else ""
    says = "is right" if example.other_answer == example.label else f"says {_class(example.other_answer, names)}"
    return f"{text} Shown the same picture, the original {says}{' ' if same else ''}{same}."


def encoder(count: int) -> Callable[[npt.NDArray[np.float32], bool], str]:
    """Return a function from an image (C, H, W) in [0, 1] to a data URI.

    Its second argument tells whether the image is a change, drawn from white for none to dark red for 1.

    Args:
        count: How many pictures share `MOST_BYTES`; larger ones are reduced to fit.
    """
    pillow: Any = require("PIL.Image", "report")
    require("matplotlib", "report")
    colours = reds()
    # Three bytes a pixel and four characters for three bytes: even noise, which no PNG makes smaller, stays within it.
    side = min(_LARGEST, math.isqrt(int(MOST_BYTES / 4 / max(1, count))) - 4)

    def encode(image: npt.NDArray[np.float32], change: bool) -> str:
        small = _reduced(image, side, np.maximum if change else np.add)
        if change:
            pixels = colours(np.clip(small.max(axis=0), 0, 1))[:, :, :3]
        elif len(small) == 3:
            pixels = np.moveaxis(small, 0, -1)
        else:
            pixels = small.mean(axis=0)
        picture = pillow.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
        stream = io.BytesIO()
        picture.save(stream, format="PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

    return encode


def _row(
    example: Example,
    names: Sequence[str],
    eps: float,
    clean: Images,
    adversarial: Images,
    encode: Callable[[npt.NDArray[np.float32], bool], str],
) -> Row:
    index, change = example.choice.index, np.abs(adversarial - clean)
    most = float(change.max()) or 1.0
    answer = _class(example.answer, names)
    pictures = (
        Picture(encode(clean, False), f"Image {index} before the attack: {_class(example.label, names)}", "before"),
        Picture(encode(adversarial, False), f"Image {index} after the attack: classified as {answer}", "after"),
        Picture(encode(change / most, True), f"What the attack changed in image {index}: up to {most:.3f}", "change"),
    )
    return Row(pictures, words(example, names, eps))


def _reduced(image: npt.NDArray[np.float32], side: int, join: np.ufunc) -> npt.NDArray[np.float32]:
    """Make an image (C, H, W) smaller by joining squares of pixels: their mean, or with `maximum` their largest."""
    factor = math.ceil(max(image.shape[1:]) / side)
    if factor == 1:
        return image
    starts = [np.arange(0, size, factor) for size in image.shape[1:]]
    found = join.reduceat(join.reduceat(image, starts[0], axis=1), starts[1], axis=2)
    if join is np.maximum:
        return np.asarray(found, dtype=np.float32)
    counts = np.outer(*(np.diff([*begin, size]) for begin, size in zip(starts, image.shape[1:], strict=True)))
    return np.asarray(found / counts, dtype=np.float32)


def _class(number: int, names: Sequence[str]) -> str:
    if number == NO_ANSWER:
        return "no class"
    name = names[number] if 0 <= number < len(names) else str(number)
    return f"class {name}" if name == str(number) else f"'{name}'"


def _size(norm: str, distance: float) -> str:
    if norm == "linf":
        return f"no pixel changed by more than {distance:.3f}"
    return f"{norm.upper()} size of the change {distance:.3g}"
