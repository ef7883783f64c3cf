"""Run a session whose model comes from anybody: a model may open and yet fail on every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from jr_onnx.errors import JrError, ModelError, one_line

Array = npt.NDArray[Any]


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], name: str) -> list[Array]:
    """Return outputs of a session.

    Args:
        session: An ONNX Runtime session, or `jr_onnx.InferenceSession`.
        outputs: Names of outputs.
        feeds: The inputs by name.
        name: What to call the model in an error.

    Raises:
        ModelError: ONNX Runtime fails on it.
    """
    try:
        found: list[Array] = session.run(list(outputs), dict(feeds))
    except JrError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
        raise ModelError(f"ONNX Runtime cannot run {name}: {one_line(error)}") from None
    return found
