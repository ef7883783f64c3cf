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
from jr_onnx.evaluation.summary import ORIGINAL, RETROFIT
from jr_onnx.report.svg import reds

MOST_BYTES = 1_900_000
"""Of all pictures of a page together, as data URIs."""

_SIDES = (96, 80, 64)
"""Longest sides in pixels to try, largest first."""

_LONGEST = 20
"""Characters of a name below a picture."""

_KINDS = {"least robust": "easiest to fool", "most robust": "hardest to fool"}

_Encode = Callable[[npt.NDArray[np.float32], bool], str]


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        uri: A PNG as a data URI.
        alt: What it shows.
    """

    uri: str
    alt: str


@dataclass(frozen=True)
class Column:
    """The pictures of one image.

    Attributes:
        pictures: Before the attack, after it, and the change.
        answer: True class and what the model says after the attack, in short.
        size: How much was changed, in short.
        words: The same as a sentence.
    """

    pictures: tuple[Picture, ...]
    answer: str
    size: str
    words: str


@dataclass(frozen=True)
class Group:
    """Images that were the easiest, or the hardest, to fool a model with.

    Attributes:
        title: Which model, and which of the two.
        columns: The images.
    """

    title: str
    columns: tuple[Column, ...]


def groups(found: ExampleSet, eps: float) -> dict[str, list[Group]]:
    """Return the examples by attacker, and for each by model and by how robust they are, in their order.

    All pictures together take at most `MOST_BYTES`; large ones are reduced.

    Args:
        found: The examples.
        eps: The budget, in pixel scale.

    Raises:
        MissingExtraError: matplotlib or Pillow is not installed.
    """
    by_attacker: dict[str, dict[str, list[Column]]] = {}
    for example, column in zip(found.table.examples, _columns(found, eps), strict=True):
        choice = example.choice
        title = f"{choice.model[:1].upper()}{choice.model[1:]}: {_KINDS[choice.kind]}"
        by_attacker.setdefault(choice.attacker, {}).setdefault(title, []).append(column)
    return {
        attacker: [Group(title, tuple(members)) for title, members in titles.items()]
        for attacker, titles in by_attacker.items()
    }


def _columns(found: ExampleSet, eps: float) -> list[Column]:
    """Return a column for every example, with pictures as large as `_SIDES` and `MOST_BYTES` allow."""
    # Three bytes a pixel and four characters for three bytes: even noise, which no PNG makes smaller, fits with this.
    surely = math.isqrt(int(MOST_BYTES / 4 / max(1, 3 * len(found.table.examples)))) - 4
    columns: list[Column] = []
    for side in (*(side for side in _SIDES if side > surely), min(surely, _SIDES[0])):
        encode, columns, left = encoder(side), [], MOST_BYTES
        for example, clean, adversarial in zip(found.table.examples, found.clean, found.adversarial, strict=True):
            columns.append(_column(example, found.table.class_names, eps, clean, adversarial, encode))
            left -= sum(len(picture.uri) for picture in columns[-1].pictures)
            if left < 0:
                break
        else:
            break
    return columns


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
    beyond = f", beyond the budget of {eps:.4g}" if _beyond(example, eps) else ""
    text = f"{text} {choice.entry} ({size}{beyond})."
    if example.other_answer is None:
        return text
    other = RETROFIT if choice.model == ORIGINAL else ORIGINAL
    same = " too" if example.other_answer == example.answer != example.label else ""
    says = "is right" if example.other_answer == example.label else f"says {_class(example.other_answer, names)}"
    return f"{text} Shown the same picture, the {other} {says}{same}."


def encoder(side: int) -> _Encode:
    """Return a function from an image (C, H, W) in [0, 1] to a data URI.

    Its second argument tells whether the image is a change, drawn from white for none to dark red for 1.

    Args:
        side: Longest side in pixels; larger images are reduced.
    """
    pillow: Any = require("PIL.Image", "report")
    require("matplotlib", "report")
    colours = reds()

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


def _column(
    example: Example, names: Sequence[str], eps: float, clean: Images, adversarial: Images, encode: _Encode
) -> Column:
    index, change = example.choice.index, np.abs(adversarial - clean)
    most = float(change.max()) or 1.0
    truth, answer = _class(example.label, names), _class(example.answer, names)
    pictures = (
        Picture(encode(clean, False), f"Image {index} before the attack: {truth}"),
        Picture(encode(adversarial, False), f"Image {index} after the attack: classified as {answer}"),
        Picture(encode(change / most, True), f"What the attack changed in image {index}: up to {most:.3f}"),
    )
    short = _short(example.label, names)
    if not example.fooled:
        short = f"{short}: not fooled"
    elif example.answer == example.label:
        short = f"{short}: mostly wrong"
    else:
        short = f"{short} \N{RIGHTWARDS ARROW} {_short(example.answer, names)}"
    size = f"{example.distance:.3f}" + (", over budget" if _beyond(example, eps) else "")
    return Column(pictures, short, size, words(example, names, eps))


def _beyond(example: Example, eps: float) -> bool:
    return example.distance > eps * (1 + 1e-6)


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
    name = _name(number, names)
    return name if number == NO_ANSWER else f"class {name}" if name == str(number) else f"'{name}'"


def _name(number: int, names: Sequence[str]) -> str:
    if number == NO_ANSWER:
        return "no class"
    return names[number] if 0 <= number < len(names) else str(number)


def _short(number: int, names: Sequence[str]) -> str:
    """Return a name that fits below a picture: the first of several synonyms, and not all of a long one."""
    name = _name(number, names).partition(",")[0].strip()
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _size(norm: str, distance: float) -> str:
    if norm == "linf":
        return f"no pixel changed by more than {distance:.3f}"
    return f"{norm.upper()} size of the change {distance:.3g}"
