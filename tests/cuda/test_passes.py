"""On the CUDA provider a retrofit takes fewer passes over memory than its original: bias, residual and jump are one."""

from __future__ import annotations

import ctypes

import numpy as np
import onnxruntime
import pytest

from jr_onnx.bench.models import build
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, convnet
from tools.checks.gpu.passes import as_run, count_passes
from tools.checks.gpu.sessions import CPU, CUDA

PROVIDERS = [CUDA, CPU]


# Per model: the original's passes, those of the plain retrofit, those with bias, residual and jump in one.
@pytest.mark.parametrize(
    ("name", "passes"), [("resnet50", (118, 118, 53)), ("mobilenet_v2", (97, 97, 62)), ("wide_resnet", (65, 65, 53))]
)
def test_passes_over_memory(fake: ctypes.CDLL, name: str, passes: tuple[int, int, int]) -> None:
    model = build(name)
    retrofit = rewrite(model, 0.06)[0].SerializeToString()
    graphs = [
        as_run(onnxruntime.InferenceSession, model.SerializeToString(), PROVIDERS),
        as_run(InferenceSession, retrofit, PROVIDERS, retrofit="plain"),
        as_run(InferenceSession, retrofit, PROVIDERS),
    ]
    assert tuple(map(count_passes, graphs)) == passes
    assert not any(node.op_type.startswith("Memcpy") for graph in graphs for node in graph.graph.node)


def test_the_session_fuses_and_runs(fake: ctypes.CDLL) -> None:
    session = InferenceSession(rewrite(convnet(), KAPPA)[0].SerializeToString(), providers=PROVIDERS)
    assert session.get_providers()[0] == CUDA
    assert (session.retrofit.mode, session.retrofit.jumps, session.retrofit.fused) == ("optimised", 6, 5)
    assert session.run(None, {"x": np.ones((2, 3, 8, 8), np.float32)})[0].shape == (2, 5)
