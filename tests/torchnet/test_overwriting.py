"""A site may write over its input only where nobody else needs it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.torchnet import OnnxModule, load
from jr_onnx.torchnet.program import SiteStep

WEIGHTS = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32), "b": np.zeros(4, np.float32)}


def network(*nodes: tuple[str, list[str], str], shape: tuple[int | str, ...] = ("N", 4)) -> OnnxModule:
    """A network of nodes (operator, inputs, output) from "x" to "y"."""
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in nodes],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return load(model)


def overwritten(net: OnnxModule) -> list[bool]:
    return [step.overwrite for step in net._blueprint.program.steps if isinstance(step, SiteStep)]


ALONE = [("Gemm", ["x", "w", "b"], "z"), ("Relu", ["z"], "a"), ("MatMul", ["a", "w"], "y")]
TWICE = [("Gemm", ["x", "w", "b"], "z"), ("Relu", ["z"], "a"), ("Add", ["a", "z"], "y")]
ITSELF = [("Relu", ["x"], "a"), ("MatMul", ["a", "w"], "y")]
VIEW = [
    ("Gemm", ["x", "w", "b"], "g"),
    ("Flatten", ["g"], "z"),
    ("Relu", ["z"], "a"),
    ("Add", ["a", "g"], "y"),
]
KEPT = [("Gemm", ["x", "w", "b"], "g"), ("Sigmoid", ["g"], "z"), ("Relu", ["z"], "a"), ("MatMul", ["a", "w"], "y")]


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [(ALONE, True), (TWICE, False), (ITSELF, False), (VIEW, False), (KEPT, False)],
    ids=["alone", "read twice", "the input", "a view", "saved for a derivative"],
)
@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_values_and_gradients_stay_what_they_are(
    nodes: list[tuple[str, list[str], str]], wanted: bool, kappa: float
) -> None:
    net = network(*nodes)
    assert overwritten(net) == [wanted]
    net.set_kappa(kappa)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    leaf = x.clone().requires_grad_()
    logits = net(leaf)
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    with torch.no_grad():
        assert torch.equal(net(x), logits)
    assert torch.equal(x, before), "the caller's images are his"
    with net.observing(lambda *_: None):  # who observes gets tensors of his own, and so the plain way
        plain = net(leaf)
    (expected,) = torch.autograd.grad(plain.square().sum(), leaf)
    assert torch.equal(logits, plain)
    assert torch.equal(gradient, expected)


def test_an_observer_sees_the_pre_activations() -> None:
    net = network(*ALONE)
    seen: list[torch.Tensor] = []
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), net.observing(lambda _, z, result: seen.extend((z, result))):
        net(x)
    z, result = seen
    assert torch.allclose(z, x @ torch.from_numpy(WEIGHTS["w"]), atol=1e-6)
    assert bool((z < 0).any())
    assert torch.equal(result, z.relu())


def test_a_static_batch_gives_the_same() -> None:
    free, bound = network(*ALONE), network(*ALONE, shape=(2, 4))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(free(x), bound(x), atol=1e-6)
