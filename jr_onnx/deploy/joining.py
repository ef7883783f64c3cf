"""Whether requests to a model may be joined into one run: one decision for the server and for Triton's packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from jr_onnx.deploy.model import ModelFacts, TensorFacts
from jr_onnx.rows import Joining, TrialInput, decide
from jr_onnx.rows.trial import Run
from jr_onnx.runtime.running import open_model


def joining(facts: ModelFacts, shown: Iterable[TensorFacts], run: Run | Path, *, insist: str = "") -> Joining:
    """Decide whether the requests to a model whose first axis is the batch may be joined.

    Args:
        facts: The model, with the proof of its rows.
        shown: The inputs that a request brings.
        run: What runs the model for a trial, or the file that ONNX Runtime is to open for it.
        insist: The option with which the user says that rows are independent; empty where they do not.
    """
    wanted = [TrialInput(tensor.name, tensor.dims or (), _dtype(tensor.element_type)) for tensor in shown]
    open_model = (lambda: _opened(run)) if isinstance(run, Path) else (lambda: run)
    return decide(facts.rows, open_model, wanted, insist=insist)


def _dtype(element_type: int) -> np.dtype[np.generic]:
    if element_type == onnx.TensorProto.STRING:
        return np.dtype(object)
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))


def _opened(path: Path) -> Run:
    session = open_model(str(path), path.name)
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))
