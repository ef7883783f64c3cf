"""Clean accuracy over many kappas: one file with kappa as a run-time input, one ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jr_onnx.attack.classifier.served import Head, further_inputs, open_session
from jr_onnx.attack.judging import DECISION_DRAWS
from jr_onnx.data import ImageData, InputAdapter, Preprocessing, padded
from jr_onnx.element_types import TENSORS, numpy_dtype
from jr_onnx.evaluation.scores import predictions
from jr_onnx.kappa import DEFAULT_INPUT_NAME, KappaPlan
from jr_onnx.modelfile import load as load_model
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.running import run
from jr_onnx.torchnet.runtime import exposing

Bools = npt.NDArray[np.bool_]


class CleanAccuracy:
    """Answers which samples a model gets right at a kappa that all its sites share."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        data: ImageData,
        preprocessing: Preprocessing,
        *,
        head: Head,
        random: bool = False,
        batch: int = 256,
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Write the file with the kappa input, and open it.

        Args:
            model: The original.
            folder: Where to write.
            data: The samples.
            preprocessing: What the model expects of pixels.
            head: Where the answer is.
            random: Whether two runs may differ, so that the majority of several counts.
            batch: Samples at a time, where the model leaves that free.
            values: The numbers that fill the model's further inputs.
        """
        path = folder / f"{model.stem}.kappa.onnx"
        rewrite(
            model,
            KappaPlan(0.0, input_name=DEFAULT_INPUT_NAME),
            output=path,
            force=True,
        )
        given = {value.name for value in load_model(path).proto.graph.output}
        self._session = open_session(path, None if head.output in given else exposing(path, head.output))
        self._further = further_inputs(self._session, values or {}, (DEFAULT_INPUT_NAME,))
        self._adapter = InputAdapter(self._further.image, data.shape, preprocessing)
        self._name = self._further.image.name
        declared = {
            item.name: item for item in (*self._session.get_inputs(), *self._session.get_overridable_initializers())
        }
        self._kappa_type = numpy_dtype(TENSORS[declared[DEFAULT_INPUT_NAME].type].name)
        self._model, self._head, self._data = model.name, head, data
        self._runs = DECISION_DRAWS if random else 1
        self._batch = self._adapter.fixed_batch or batch

    def right(self, kappa: float) -> Bools:
        """Return which samples (N,) are classified correctly.

        Raises:
            ModelError: ONNX Runtime fails on the model.
        """
        feed = np.asarray(kappa, dtype=self._kappa_type)
        parts = []
        for images, labels in self._data.batches(self._batch):
            count = len(images)
            images = padded(images, self._adapter.fixed_batch)
            feeds = {self._name: self._adapter.to_model(images), **self._further.feed(len(images))}
            hits = np.zeros(count)
            for _ in range(self._runs):
                (scores,) = run(self._session, [self._head.output], {**feeds, DEFAULT_INPUT_NAME: feed}, self._model)
                hits += predictions(self._head.scores(scores)[:count]) == labels
            parts.append(hits * 2 > self._runs)
        result: Bools = np.concatenate(parts)
        return result

    def sweep(self, kappas: Iterable[float]) -> list[Bools]:
        """Return `right` for every kappa."""
        return [self.right(kappa) for kappa in kappas]
