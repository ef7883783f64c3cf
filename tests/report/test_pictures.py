"""Adversarial examples: what is drawn, what is said of it, and that a page of them stays small."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest

from jr_onnx.evaluation.examples import Choice, Example, ExampleSet, ExampleTable
from jr_onnx.report.pictures import MOST_BYTES, encoder, groups, words

NAMES = ("cat", "dog", "2")
EXAMPLE = Example(Choice("knows everything", "retrofit", "least robust", 17, "fmn"), 0, 1, 0, True, "linf", 0.05)


def decoded(uri: str) -> np.ndarray:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Image 17, 'cat': the retrofit says 'dog' after fmn (no pixel changed by more than 0.050). "
         "Shown the same picture, the original is right."),
        ({"other_answer": 1}, "the original says 'dog' too."),
        ({"other_answer": 2}, "the original says class 2."),
        ({"other_answer": None}, "the retrofit says 'dog' after fmn (no pixel changed by more than 0.050)."),
        ({"distance": 0.2}, "(no pixel changed by more than 0.200, beyond the budget of 0.1)"),
        ({"norm": "l2", "distance": 1.25}, "(L2 size of the change 1.25, beyond the budget of 0.1)"),
        ({"choice": replace(EXAMPLE.choice, model="original"), "other_answer": 1},
         "the original says 'dog' after fmn (no pixel changed by more than 0.050). Shown the same picture, the "
         "retrofit says 'dog' too."),
        ({"answer": -1}, "the retrofit says no class after fmn"),
        ({"answer": 0}, "the retrofit is wrong in most of its runs after fmn"),
        ({"fooled": False, "answer": 0},
         "none of this attacker's attacks fools the retrofit. The attempt of fmn is shown (no pixel"),
    ],
)  # fmt: skip
def test_words_say_the_truth_and_the_answer(changes: dict[str, object], text: str) -> None:
    assert text in words(replace(EXAMPLE, **changes), NAMES, 0.1)


def test_a_fooled_image_is_never_called_unfooled() -> None:
    assert "fools" not in words(EXAMPLE, NAMES, 0.1)
    assert "says" not in words(replace(EXAMPLE, fooled=False), NAMES, 0.1)


def test_pictures_show_before_after_and_the_change() -> None:
    clean = np.zeros((1, 3, 4, 4), np.float32)
    clean[0, 0] = 1.0
    adversarial = clean.copy()
    adversarial[0, 1, 0, 0] = 0.5
    adversarial[0, 2, 3, 3] = 0.25
    found = groups(ExampleSet(ExampleTable(NAMES, (EXAMPLE,)), clean, adversarial), 0.1)
    ((group,),) = found.values()
    assert group.title == "Retrofit: easiest to fool"
    (column,) = group.columns
    before, after, change = (decoded(picture.uri) for picture in column.pictures)
    assert before.tolist() == np.broadcast_to([255, 0, 0], (4, 4, 3)).tolist()
    assert after[0, 0].tolist() == [255, 128, 0]
    assert change[1, 1].tolist() == [255, 255, 255]
    assert change[0, 0].tolist() == [103, 0, 13]
    assert 103 < change[3, 3, 0] < 255
    alts = [picture.alt for picture in column.pictures]
    assert alts == [
        "Image 17 before the attack: 'cat'", "Image 17 after the attack: classified as 'dog'",
        "What the attack changed in image 17: up to 0.500",
    ]  # fmt: skip


def test_grey_images_and_odd_numbers_of_channels_are_grey() -> None:
    encode = encoder(96)
    assert decoded(encode(np.full((1, 5, 7), 0.5, np.float32), False)).tolist() == np.full((5, 7), 128).tolist()
    two = np.stack([np.zeros((5, 7)), np.ones((5, 7))]).astype(np.float32)
    assert decoded(encode(two, False)).tolist() == np.full((5, 7), 128).tolist()


def test_large_pictures_are_reduced_and_keep_their_largest_change() -> None:
    encode = encoder(96)
    image = np.zeros((3, 224, 200), np.float32)
    image[:, 5, 7] = 1.0
    assert decoded(encode(image, False)).shape == (75, 67, 3)
    assert decoded(encode(image, False)).max() == round(255 / 9)
    assert (decoded(encode(image, True))[1, 2] == [103, 0, 13]).all()


@pytest.mark.parametrize(
    ("changes", "answer", "size"),
    [
        ({}, "cat → dog", "0.050"),
        ({"fooled": False, "answer": 0}, "cat: not fooled", "0.050"),
        ({"answer": 0}, "cat: mostly wrong", "0.050"),
        ({"answer": -1}, "cat → no class", "0.050"),
        ({"label": 2, "distance": 0.2}, "2 → dog", "0.200, over budget"),
    ],
)
def test_captions_are_short_and_true(changes: dict[str, object], answer: str, size: str) -> None:
    image = np.zeros((1, 1, 4, 4), np.float32)
    ((group,),) = groups(ExampleSet(ExampleTable(NAMES, (replace(EXAMPLE, **changes),)), image, image), 0.1).values()
    assert (group.columns[0].answer, group.columns[0].size) == (answer, size)


def test_long_names_are_short_below_a_picture_and_whole_in_words() -> None:
    names = ("great white shark, Carcharodon carcharias", "a class of which the name is long")
    image = np.zeros((1, 1, 4, 4), np.float32)
    ((group,),) = groups(ExampleSet(ExampleTable(names, (EXAMPLE,)), image, image), 0.1).values()
    (column,) = group.columns
    assert column.answer == "great white shark → a class of which th…"
    assert f"'{names[0]}': the retrofit says '{names[1]}' after fmn" in column.words


@pytest.mark.parametrize(("count", "smooth", "least"), [(36, True, 75), (36, False, 50), (120, False, 30)])
def test_the_pictures_of_a_page_stay_within_the_limit(count: int, smooth: bool, least: int) -> None:
    """Pictures are as large as they may be: noise, which no PNG makes smaller, is reduced further."""
    side = 300
    ramp = np.broadcast_to(np.linspace(0, 1, side, dtype=np.float32), (3, side, side))
    noise = np.random.default_rng(0).random((3, side, side)).astype(np.float32)
    image = ramp if smooth else np.repeat(np.repeat(noise[:, ::6, ::6], 6, 1), 6, 2)
    examples = tuple(replace(EXAMPLE, choice=replace(EXAMPLE.choice, index=index)) for index in range(count))
    images = np.broadcast_to(image, (count, *image.shape))
    ((group,),) = groups(ExampleSet(ExampleTable(NAMES, examples), images, images[:, ::-1]), 0.1).values()
    uris = [picture.uri for column in group.columns for picture in column.pictures]
    assert len(uris) == 3 * count
    assert sum(map(len, uris)) <= MOST_BYTES
    assert decoded(uris[0]).shape[0] >= least
