"""Which output of a model is the classifier's: the one that fits the labels, and no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.classifier.served import Head, ServedClassifier
from jr_onnx.data import ImageData
from jr_onnx.element_types import Array
from jr_onnx.errors import InputError
from jr_onnx.evaluation.scores import predictions
from jr_onnx.evaluation.statistics import mcnemar_one_sided

TRIED = 200
"""Images that the choice is made on, the first of the data."""

_LEVEL = 0.01
Alike = Callable[[Sequence[str]], Mapping[str, int]]
"""Groups outputs that give the same answers: output -> number of its group."""


@dataclass(frozen=True)
class _Candidate:
    """An output with one row of scores per image, or one score (N,)."""

    name: str
    scores: Array

    @property
    def columns(self) -> int:
        return int(self.scores.shape[1])

    def fits(self, labels: npt.NDArray[np.int64]) -> bool:
        """Return whether it has a score for every label; one score is that of two classes."""
        return max(2, self.columns) > int(labels.max(initial=0))

    def right(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which images (N,) it answers as labelled."""
        result: npt.NDArray[np.bool_] = predictions(_head(self).scores(self.scores)) == labels
        return result


def choose_output(served: ServedClassifier, data: ImageData, alike: Alike) -> str:
    """Return the output that is the scores of the data's classes.

    An output fits if it has a score for every label. Where several fit, and do not give the same answers by
    construction, the one that answers clearly more of the images right is taken, or the only one with as many scores as
    the data have classes.

    Args:
        served: The model.
        data: Labelled images; the first ones are tried.
        alike: Which outputs give the same answers by construction.

    Raises:
        InputError: None fits, or several do.
    """
    names = served.outputs
    pixels, labels = data.images[:TRIED], data.labels[:TRIED]
    given = served.run(pixels, names)
    candidates = [
        _Candidate(name, found.reshape(len(found), -1))
        for name, found in zip(names, given, strict=True)
        if found.ndim > 0 and len(found) == len(pixels) and sum(size > 1 for size in found.shape[1:]) <= 1
    ]
    fitting = [item for item in candidates if item.fits(data.labels)]
    if not fitting:
        raise InputError(_nothing_fits(served, candidates, data), hint=_remedy(candidates, data))
    if len(fitting) > 1:
        groups = alike([item.name for item in fitting])
        fitting = [item for at, item in enumerate(fitting) if groups[item.name] not in _groups(groups, fitting[:at])]
    if len(fitting) == 1:
        return fitting[0].name
    right = {item.name: item.right(labels) for item in fitting}
    best, *others = sorted(fitting, key=lambda item: -int(right[item.name].sum()))
    level = _LEVEL / len(others)
    if all(mcnemar_one_sided(right[best.name], right[other.name])[0] < level for other in others):
        return best.name
    exact = [item for item in fitting if item.columns == len(data.class_names)]
    if len(exact) == 1:
        return exact[0].name
    listed = ", ".join(
        f"{item.name!r} ({item.columns} columns, {right[item.name].mean():.0%} right)" for item in fitting
    )
    raise InputError(
        f"several outputs of {served.path.name} may be the scores of the {len(data.class_names)} classes: {listed} on "
        f"{len(labels)} images",
        hint="Name the right one with --logits",
    )


def head_of(served: ServedClassifier, data: ImageData, output: str, threshold: float | None) -> Head:
    """Return how an output is read: as a score per class, or as one score and the threshold between two classes.

    Args:
        served: The model.
        data: Labelled images; the first ones are tried.
        output: Its name.
        threshold: The threshold, where the graph determines it. Else it is 1/2 where all scores are in [0, 1], and 0.

    Raises:
        InputError: The output is not a matrix, or lacks a score for a label.
    """
    (found,) = served.run(data.images[:TRIED], [output])
    if found.ndim == 0 or len(found) != len(data.images[:TRIED]):
        raise InputError(
            f"{output!r} has the shape {list(found.shape)}, expected a row of scores per image",
            hint="Name another value with --logits",
        )
    item = _Candidate(output, found.reshape(len(found), -1))
    if not item.fits(data.labels):
        raise InputError(_nothing_fits(served, [item], data), hint="Check the labels, or name another with --logits")
    head = _head(item)
    return head if head.threshold is None or threshold is None else Head(output, threshold)


def _head(item: _Candidate) -> Head:
    if item.columns > 1:
        return Head(item.name)
    within = np.greater_equal(item.scores, 0) & np.less_equal(item.scores, 1)
    is_share = item.scores.size > 0 and bool(within.all())
    return Head(item.name, 0.5 if is_share else 0.0)


def _groups(groups: Mapping[str, int], members: Sequence[_Candidate]) -> set[int]:
    return {groups[item.name] for item in members}


def _remedy(candidates: Sequence[_Candidate], data: ImageData) -> str:
    largest = int(data.labels.max(initial=0))
    if any(item.columns == largest for item in candidates) and int(data.labels.min(initial=1)) == 1:
        return "Number the classes from 0: subtract 1 from the labels"
    return "Name the value that holds them (--logits), or number the classes as the model's outputs are, from 0"


def _nothing_fits(served: ServedClassifier, candidates: Sequence[_Candidate], data: ImageData) -> str:
    largest = int(data.labels.max(initial=0))
    if not candidates:
        return f"no output of {served.path.name} is a row of scores per image: {', '.join(map(repr, served.outputs))}"
    shown = ", ".join(
        f"{item.name!r} has {'one score, which tells two' if item.columns == 1 else item.columns} classes"
        for item in candidates
    )
    return f"the largest label is {largest}, and {shown}"
