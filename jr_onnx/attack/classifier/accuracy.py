"""Refuse to attack a classifier that does not classify, and suggest the preprocessing that it may expect.

Figures about a model whose images are prepared wrongly look like figures; wrong preprocessing is the commonest mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.classifier.served import ServedClassifier
from jr_onnx.data import PRESETS, ImageData, Preprocessing
from jr_onnx.errors import DataError
from jr_onnx.evaluation.scores import NO_ANSWER, predictions
from jr_onnx.evaluation.statistics import binomial_tail, mcnemar_one_sided

TRIED = 200
"""Images that are looked at, from all over the data."""

_FEWEST = 8  # fewer images cannot show that a model guesses
_LEVEL = 0.05
_LEAST, _MOST = 0.1, 0.25
"""Shares of the way from chance to perfection: below the first it is near chance, however sure that it is not chance;
from the second on it is not, however few the images."""

_USUAL: dict[str, Preprocessing] = {
    **PRESETS,
    "range=0,255": Preprocessing(range=(0.0, 255.0)),
    "range=-1,1": Preprocessing(range=(-1.0, 1.0)),
    "range=0,255;mean=123.68,116.779,103.939": Preprocessing(mean=(123.68, 116.779, 103.939), range=(0.0, 255.0)),
}
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Clean:
    """How a model classifies clean images.

    Attributes:
        right: Which images are classified as labelled (n,).
        chance: The share that answers as frequent as these would get right if they did not depend on the image.
        unanswered: Images whose scores are NaN or infinite.
    """

    right: Bools
    chance: float
    unanswered: int

    @classmethod
    def of(cls, answers: npt.NDArray[np.int64], data: ImageData) -> Clean:
        """Compare answers (n,) with the labels of images."""
        labels = data.labels
        scores = 1 + max(int(labels.max(initial=0)), int(answers.max(initial=0)))
        if len(set(labels.tolist())) > 1:
            shares = [
                np.bincount(part[part >= 0], minlength=scores) / max(1, len(labels)) for part in (answers, labels)
            ]
            chance = float(np.dot(*shares))
        else:
            chance = 1 / max(2, len(data.class_names))
        return cls(answers == labels, chance, int((answers == NO_ANSWER).sum()))

    @property
    def accuracy(self) -> float:
        """Share of the images."""
        return float(self.right.mean())

    @property
    def is_poor(self) -> bool:
        """Whether it is less than half way from chance to perfection."""
        return self.accuracy < (1 + self.chance) / 2

    @property
    def is_chance(self) -> bool:
        """Whether there are enough images to show that it is near chance."""
        count = len(self.right)
        way = (self.accuracy - self.chance) / (1 - self.chance) if self.chance < 1 else 1.0
        if count < _FEWEST or way >= _MOST:
            return False
        return way < _LEAST or binomial_tail(int(self.right.sum()), count, self.chance) >= _LEVEL


def require_clean(served: ServedClassifier, data: ImageData, current: Preprocessing, *, force: bool) -> str:
    """Refuse a model that classifies clean images no better than by chance.

    Args:
        served: The model, as it is going to be attacked.
        data: Labelled images.
        current: What it is fed with.
        force: Return the refusal as a warning instead.

    Returns:
        What the reader of the results should know; "" where all is well.

    Raises:
        DataError: The model gives no answer, or answers near chance, and `force` is not set.
    """
    sample = sample_of(data)
    found = classified(served, sample)
    if not found.is_poor:
        return ""
    advice = _advice(served, sample, current, found)
    count, name = len(found.right), served.path.name
    if found.unanswered * 2 > count:
        text = f"{name} gives NaN or infinite scores for {found.unanswered} of {count} clean images"
    else:
        text = f"{name} classifies {found.accuracy:.0%} of {count} clean images correctly"
        if found.is_chance:
            text += f", where guessing gives {found.chance:.0%}"
    if not found.is_chance:
        return f"warning: {text}; {advice}" if advice else ""
    message = f"{text}; {advice or 'none of the usual preprocessings is better: check labels, data and --logits'}"
    if force:
        return f"warning: {message}"
    raise DataError(message, hint="Fix --preprocess, --data or --logits, or continue with --allow-poor-accuracy")


def classified(served: ServedClassifier, data: ImageData) -> Clean:
    """Classify images; a random model by one run."""
    return Clean.of(predictions(served.logits(data.images)), data)


def sample_of(data: ImageData) -> ImageData:
    """Return the images that accuracy is judged on, from all over the data."""
    return data.take(np.unique(np.linspace(0, len(data) - 1, min(TRIED, len(data))).astype(np.int64)))


def _advice(served: ServedClassifier, sample: ImageData, current: Preprocessing, found: Clean) -> str:
    """Say which preprocessing, or numbering of the labels, is clearly better."""
    tried: list[tuple[float, str]] = []
    for words, other in _variants(current, sample.shape[0]):
        better = _tried(served, sample, other)
        if better is not None and mcnemar_one_sided(better.right, found.right)[0] < _LEVEL / len(_USUAL):
            tried.append((better.accuracy, f"--preprocess {words!r} classifies {better.accuracy:.0%}"))
    answers = predictions(served.logits(sample.images))
    two_classes = max(int(answers.max(initial=0)), int(sample.labels.max(initial=0))) == 1
    shifts = [(sample.labels + 1, "the label plus one"), (sample.labels - 1, "the label minus one")]
    for labels, words in [(1 - sample.labels, "the other class")] if two_classes else shifts:
        right = answers == labels
        if mcnemar_one_sided(right, found.right)[0] < _LEVEL / len(_USUAL):
            tried.append((float(right.mean()), f"the model's answer is {words} for {right.mean():.0%}"))
    best = sorted(tried, key=lambda item: -item[0])[:2]
    return " and ".join(text for accuracy, text in best if accuracy > best[0][0] - 0.1)


def _tried(served: ServedClassifier, sample: ImageData, other: Preprocessing) -> Clean | None:
    """Classify images prepared in another way; None where they do not fit the model."""
    try:
        return classified(served.preprocessed(other), sample)
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors for a wrong shape have no common class
        return None


def _variants(current: Preprocessing, channels: int) -> Iterator[tuple[str, Preprocessing]]:
    """Yield the usual preprocessings as words and value, except the current one; sizes stay as they are."""
    sizes = ";".join(
        word
        for word, given in (
            (f"size={','.join(map(str, current.size))}", bool(current.size)),
            (f"resize={current.resize}", bool(current.resize)),
        )
        if given
    )
    for name, preset in _USUAL.items():
        for order in ("RGB", "BGR") if channels == 3 else ("RGB",):
            for layout in ("NCHW", "NHWC") if channels > 1 else (current.layout,):
                scaled = replace(current, mean=preset.mean, std=preset.std, range=preset.range)
                other = replace(scaled, order=order, layout=layout)
                if other != current:
                    parts = [name, *([f"order={order}"] if order != "RGB" else [])]
                    parts += [f"layout={layout}"] if layout != "NCHW" else []
                    words = [part for part in parts if part != "none" or len(parts) == 1]
                    yield ";".join([*words, *([sizes] if sizes else [])]), other
