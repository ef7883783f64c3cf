"""With prefer_nhwc a session keeps the layout (N, H, W, C), and its jumps take biases and residual sums along."""

from __future__ import annotations

import ctypes

import numpy as np
import onnx
import onnxruntime
import pytest

from jr_onnx.kappa import RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.lowering import RequestedLowering
from jr_onnx.runtime import register
from jr_onnx.runtime.nhwc import NHWC as DOMAIN
from jr_onnx.runtime.nhwc import in_standard_layout
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, convnet
from tools.checks.gpu.models import network
from tools.checks.gpu.passes import as_run, count_passes
from tools.checks.gpu.sessions import CPU, CUDA

NHWC = [(CUDA, {"prefer_nhwc": "1"}), CPU]
IMAGES = np.random.default_rng(0).integers(-8, 8, (2, 3, 8, 8)).astype(np.float32)


# Per model: the original's passes, and those of the session.
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("name", "passes"), [("resnet50", (118, 53)), ("mobilenet_v2", (97, 62)), ("wide_resnet", (65, 53))]
)
def test_passes_over_memory(fake: ctypes.CDLL, name: str, dtype: str, passes: tuple[int, int]) -> None:
    model = network(name, "float16" if dtype == "float16" else "float32")
    retrofit = rewrite(model, 0.06)[0].SerializeToString()
    before = as_run(onnxruntime.InferenceSession, model.SerializeToString(), NHWC)
    after = as_run(InferenceSession, retrofit, NHWC)
    assert (count_passes(before), count_passes(after)) == passes
    assert _convolution_domains(after) == {DOMAIN}
    assert _count(after, "Transpose") == _count(before, "Transpose") == 2


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_the_session_computes_the_retrofit(fake: ctypes.CDLL, lowering: RequestedLowering) -> None:
    """Its graph, put back into the standard layout, gives the retrofit's very logits on the CPU."""
    data = rewrite(convnet(), KAPPA, lowering=lowering, target="cuda")[0].SerializeToString()
    session = InferenceSession(data, providers=NHWC)
    assert (session.retrofit.mode, session.retrofit.jumps, session.retrofit.fused) == ("optimised", 6, 5)
    assert session.get_providers()[0] == CUDA
    assert session.run(None, {"x": IMAGES})[0].shape == (2, 5)
    graph = as_run(InferenceSession, data, NHWC)
    fused = [node for node in graph.graph.node if node.op_type == "BiasJumpRelu"]
    assert {next(item.i for item in node.attribute if item.name == "axis") for node in fused} == {-1}
    options = onnxruntime.SessionOptions()
    register(options, "cpu")
    standard = in_standard_layout(graph).SerializeToString()
    found = onnxruntime.InferenceSession(standard, options, providers=[CPU]).run(None, {"x": IMAGES})[0]
    wanted = InferenceSession(data, providers=[CPU], retrofit="plain").run(None, {"x": IMAGES})[0]
    assert wanted.any()
    assert found.tobytes() == wanted.tobytes()


def test_without_the_op_library_the_jumps_are_standard_operators(fake: ctypes.CDLL) -> None:
    model = convnet()
    data = rewrite(model, KAPPA, lowering="thresholded")[0].SerializeToString()
    session = InferenceSession(data, providers=NHWC, op_library=False)
    assert (session.retrofit.mode, session.retrofit.library) == ("plain", None)
    assert "needs the op library" in session.retrofit.reason
    before = as_run(onnxruntime.InferenceSession, model.SerializeToString(), NHWC)
    after = as_run(InferenceSession, data, NHWC, op_library=False)
    assert _count(after, "Transpose") == _count(before, "Transpose")


@pytest.mark.parametrize("source", ["op", "input"])
def test_random_kappas(fake: ctypes.CDLL, source: str) -> None:
    plan = RandomKappa(1, 5, source="op" if source == "op" else "input")
    data = rewrite(convnet(), plan, target="cuda")[0].SerializeToString()
    session = InferenceSession(data, providers=NHWC)
    assert (session.retrofit.mode, session.retrofit.fused) == ("optimised", 5)
    assert session.run(None, {"x": IMAGES})[0].shape == (2, 5)


def test_a_plain_session_registers_no_custom_operators(fake: ctypes.CDLL) -> None:
    """Each between two convolutions would cost two Transposes; only a kappa that the library draws needs them."""
    data = rewrite(convnet(), KAPPA, lowering="custom", target="cuda")[0].SerializeToString()
    session = InferenceSession(data, providers=NHWC, retrofit="plain")
    assert (session.retrofit.mode, session.retrofit.library) == ("plain", None)
    assert "two Transposes around every custom operator" in session.retrofit.library_problem
    drawing = rewrite(convnet(), RandomKappa(1, 5, source="op"), lowering="custom", target="cuda")[0]
    session = InferenceSession(drawing.SerializeToString(), providers=NHWC, retrofit="plain")
    assert session.retrofit.library is not None


def _convolution_domains(model: onnx.ModelProto) -> set[str]:
    return {node.domain for node in model.graph.node if node.op_type == "Conv"}


def _count(model: onnx.ModelProto, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph.node)
