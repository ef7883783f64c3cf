"""A model as it will be served: the file in ONNX Runtime, from pixels to scores and answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.attack.target import ArrayTarget
from jr_onnx.data import FurtherInputs, ImageData, InputAdapter, ModelInput, Preprocessing, padded
from jr_onnx.element_types import Array
from jr_onnx.errors import ModelError
from jr_onnx.evaluation.scores import NO_ANSWER, predictions
from jr_onnx.runtime import running
from jr_onnx.runtime.providers import CPU, CUDA, full_name
from jr_onnx.torchnet.runtime import exposing
from jr_onnx.torchnet.source import refuse_maps

_FLOATING = ("tensor(float)", "tensor(double)", "tensor(float16)")  # that NumPy has, too
_REPEATED, _REPEATS = 8, 3
_PLACES = {CPU: "the CPU", CUDA: "CUDA"}


def open_session(path: Path, content: str | bytes | None = None, provider: str = "cpu") -> running.Session:
    """Open a file in `jr_onnx.InferenceSession`, without warnings of a kappa input that can be overridden.

    Args:
        path: The file.
        content: What to open in its place.
        provider: Where it computes: cpu, cuda, or ONNX Runtime's name of a provider.

    Raises:
        ModelError: ONNX Runtime cannot open the file.
        MissingExtraError: ONNX Runtime is not installed.
    """
    first = full_name(provider)
    return running.open_model(
        str(path) if content is None else content,
        f"{path.name} on {_PLACES.get(first, provider)}, where images are judged",
        providers=[first] if first == CPU else [first, CPU],
        retrofit="auto",
    )


def further_inputs(session: running.Session, values: Mapping[str, float], skip: Collection[str] = ()) -> FurtherInputs:
    """Return what a session has to be fed besides its images.

    Args:
        session: From `open_session`.
        values: Input name -> the number that fills it.
        skip: Inputs that are fed otherwise.

    Raises:
        InputError: A value names no input, or an input has no value.
    """
    inputs = [ModelInput.of_session(item) for item in session.get_inputs() if item.name not in skip]
    return FurtherInputs(inputs, values)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a model's answer is.

    Attributes:
        output: The output that is read; "" for the first matrix.
        threshold: For one score per sample: above it the answer is class 1. None for a score per class.
    """

    output: str = ""
    threshold: float | None = None

    def scores(self, found: Array) -> npt.NDArray[np.float32]:
        """Return what the output gave (N, ...) as scores of classes (N, K)."""
        rows: npt.NDArray[np.float32] = np.asarray(found, dtype=np.float32).reshape(len(found), -1)
        if self.threshold is None:
            return rows
        return np.concatenate([np.zeros_like(rows), rows - np.float32(self.threshold)], axis=1)


class ServedClassifier:
    """A model file in ONNX Runtime, fed with pixels.

    Attributes:
        path: The file.
        random: Whether two runs may differ, so that answers are majorities.
        head: Where the answer is.
    """

    def __init__(
        self,
        path: Path,
        preprocessing: Preprocessing,
        image_shape: tuple[int, int, int],
        *,
        random: bool = False,
        batch: int = 256,
        values: Mapping[str, float] | None = None,
        expose: str = "",
        provider: str = "cpu",
    ) -> None:
        """Open the file.

        Args:
            path: The file.
            preprocessing: What it expects of pixels.
            image_shape: (C, H, W).
            random: Whether two runs may differ.
            batch: Images at a time, where the file leaves that free.
            values: The numbers that fill the file's further inputs.
            expose: A value inside the graph to have as a further output; the file is then a copy in memory.
            provider: Where ONNX Runtime computes.

        Raises:
            DataError: The images do not fit the model's input.
            InputError: A further input has no value.
            ModelError: ONNX Runtime cannot open the file.
            MissingExtraError: ONNX Runtime is not installed.
        """
        self.path = path
        self.random = random
        self._image_shape = image_shape
        self._session = open_session(path, exposing(path, expose) if expose else None, provider)
        self._further = further_inputs(self._session, values or {})
        self._adapter = InputAdapter(self._further.image, image_shape, preprocessing)
        self._name = self._further.image.name
        self._batch = self._adapter.fixed_batch or batch
        self.head = Head(self.outputs[0])

    def preprocessed(self, preprocessing: Preprocessing) -> ServedClassifier:
        """Return the same open file fed in another way.

        Raises:
            DataError: The images, prepared like that, do not fit the model's input.
        """
        other = copy.copy(self)
        other._adapter = InputAdapter(self._further.image, self._image_shape, preprocessing)
        return other

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are tensors of a floating type.

        Raises:
            ModelError: There is none.
        """
        given = self._session.get_outputs()
        found = tuple(str(item.name) for item in given if item.type in _FLOATING)
        if not found:
            refuse_maps([str(item.name) for item in given if item.type.startswith("seq(map(")])
            kinds = ", ".join(f"{item.name!r} ({item.type})" for item in given)
            raise ModelError(
                f"no output of {self.path.name} holds scores, which are floating numbers: {kinds}",
                hint="Name the value that holds the logits (--logits)",
            )
        return found

    def logits(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Evaluate pixels (N, C, H, W) to scores (N, K)."""
        (found,) = self.run(pixels, [self.head.output])
        return self.head.scores(found)

    def run(self, pixels: npt.NDArray[np.float32], outputs: Sequence[str]) -> list[Array]:
        """Return outputs for pixels (N, C, H, W), each (N, ...); the last piece of a fixed batch is padded.

        Raises:
            ModelError: ONNX Runtime fails on the model.
        """
        parts: list[list[Array]] = [[] for _ in outputs]
        for start in range(0, len(pixels), self._batch):
            piece = pixels[start : start + self._batch]
            count = len(piece)
            piece = padded(piece, self._adapter.fixed_batch)
            feeds = {self._name: self._adapter.to_model(piece), **self._further.feed(len(piece))}
            for column, found in zip(parts, running.run(self._session, outputs, feeds, self.path.name), strict=True):
                value = np.asarray(found)
                # A value without the batch's axis is not a matrix of scores, even if it was asked for.
                column.append(value[:count] if value.ndim and len(value) == len(piece) else value[None][:0])
        return [np.concatenate(column) if column else np.zeros((0, 1), dtype=np.float32) for column in parts]

    def misclassifies(self, pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which images (N,) the served model gets wrong; no answer is a wrong one."""
        wrong = np.zeros(len(pixels), dtype=np.float64)
        runs = DECISION_DRAWS if self.random else 1
        for _ in range(runs):
            wrong += (predictions(self.logits(pixels)) != labels) / runs
        result: npt.NDArray[np.bool_] = wrong >= 0.5
        return result

    def answers(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the classes (N,) that the served model gives, -1 for no answer; of a random model the commonest."""
        runs = DECISION_DRAWS if self.random else 1
        drawn = np.stack([predictions(self.logits(pixels)) for _ in range(runs)])
        found: npt.NDArray[np.int64] = np.array([np.bincount(row - NO_ANSWER).argmax() for row in drawn.T]) + NO_ANSWER
        return found.astype(np.int64)

    def target(self) -> ArrayTarget:
        """Return the file as a black-box target; it takes pixels, for the adapter preprocesses them."""
        return ArrayTarget(self.logits, random=self.random)


def differs(served: ServedClassifier, data: ImageData) -> bool:
    """Return whether runs of the same images differ by more than rounding may, so that the model draws random numbers.

    A run on several threads may sum in another order: that costs less than half of a float's digits.
    """
    pixels = data.images[:_REPEATED]
    first, *others = (served.logits(pixels).astype(np.float64) for _ in range(_REPEATS))
    finite = np.abs(first[np.isfinite(first)])
    limits = np.finfo(np.float32)
    tolerance = math.sqrt(limits.eps) * max(float(finite.max(initial=0.0)), float(limits.tiny))
    return any(not np.allclose(first, other, rtol=0.0, atol=tolerance, equal_nan=True) for other in others)
