"""Tests on the fake CUDA runtime; they skip where the process was not started with it (`make cuda` does)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from jr_onnx.runtime import register
from jr_onnx.runtime.fixed import FixedBinding
from tests.cuda.fake import RUNTIME
from tools.checks.gpu.sessions import CUDA, elementwise


@pytest.fixture(scope="session")
def fake() -> ctypes.CDLL:
    """The fake runtime of this process."""
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this is not onnxruntime-gpu: `make cuda` runs these tests")
    try:
        library = ctypes.CDLL(RUNTIME)
        library.fake_cuda_launches.restype = ctypes.c_long
    except (OSError, AttributeError):
        pytest.skip("the fake CUDA runtime is not on LD_LIBRARY_PATH: `make cuda` builds it where CUDA's headers are")
    return library


class Bound:
    """A session on the CUDA provider, its inputs and its one output at fixed places of the device."""

    def __init__(self, session: Any, inputs: dict[str, npt.NDArray[Any]], shape: Sequence[int]) -> None:
        self.session = session
        self._places = FixedBinding(session, inputs, [np.full(shape, np.nan, np.float32)])

    def run(self, **inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Put inputs in their places, run, and return the output."""
        self._places.put(inputs)
        self._places.run()
        return self._places.fetch()[0]


Open = Callable[..., Any]


@pytest.fixture
def open_session(fake: ctypes.CDLL) -> Open:
    """Open a model of nodes from x to y on the CUDA provider with the op library registered."""

    def build(
        nodes: Sequence[onnx.NodeProto],
        *,
        shape: Sequence[int | str] = ("N",),
        inputs: Sequence[Any] = (),
        **options: str,
    ) -> Any:
        model = elementwise(list(nodes), shape=tuple(shape))
        model.graph.input.extend(inputs)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        register(settings, "cuda")
        providers = [(CUDA, options), "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=providers)
        assert session.get_providers()[0] == CUDA
        return session

    return build
