from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name every torch reader knows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jr_onnx.attack import PGD, DeepFool, TorchTarget
from jr_onnx.attack.cpu import FastFirstConvolution, slices, thread_pool
from jr_onnx.torchnet import load
from tests.attack.planted import several
from tools.training.export import export


@given(count=st.integers(1, 3000), values=st.integers(1, 200_000))
@settings(deadline=None)
def test_slices_cover_every_sample_once_and_are_bounded(count: int, values: int) -> None:
    pieces = slices(count, values)
    assert [index for piece in pieces for index in range(count)[piece]] == list(range(count))
    assert max(piece.stop - piece.start for piece in pieces) <= 128
    assert max(piece.stop - piece.start for piece in pieces) <= max(4, 3 * 2**15 // values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(5, 5), (3, 1), (1, 1)])
@pytest.mark.parametrize("padding", [0, 2, (1, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_convolution_and_its_gradient_are_the_librarys(
    channels: int, size: tuple[int, int], padding: int | tuple[int, int], bias: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, channels, *size, generator=generator, dtype=torch.float64)
    shift = torch.randn(7, generator=generator, dtype=torch.float64) if bias else None
    x = torch.randn(4, channels, 9, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, weight, shift, 1, padding)
    cotangent = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain, x, cotangent)
    with FastFirstConvolution():
        fast = F.conv2d(x, weight, shift, 1, padding)
    assert fast.is_contiguous(memory_format=torch.channels_last)
    (found,) = torch.autograd.grad(fast, x, cotangent)
    # Sums of at most 25 * 7 products in float64.
    assert torch.allclose(fast, plain, rtol=0, atol=1e-12)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    with FastFirstConvolution(), torch.no_grad():
        assert torch.equal(F.conv2d(x, weight, shift, 1, padding), fast)  # a verdict must not depend on gradients


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), None, 2),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), None, 1, "same"),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), None, 1, 1, 2),
        lambda x: F.conv2d(x.expand(-1, 2, -1, -1), torch.ones(2, 1, 3, 3), None, 1, 1, 1, 2),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), bias=None, stride=2),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3, requires_grad=True)),
        lambda x: F.conv2d(x[0], torch.ones(2, 1, 3, 3)),
    ],
    ids=["stride", "same", "dilation", "groups", "keywords", "trained weight", "no batch"],
)
def test_every_other_convolution_is_left_alone(call) -> None:
    x = torch.rand(2, 1, 9, 9, requires_grad=True)
    with FastFirstConvolution():
        fast = call(x)
    assert type(fast.grad_fn).__name__ == type(call(x).grad_fn).__name__


def test_arguments_may_be_given_by_name() -> None:
    x, weight, bias = torch.rand(2, 1, 9, 9, requires_grad=True), torch.rand(2, 1, 3, 3), torch.rand(2)
    with FastFirstConvolution():
        placed = F.conv2d(x, weight, bias, 1, (1, 2))
        named = F.conv2d(input=x, weight=weight, bias=bias, padding=(1, 2), groups=1, dilation=[1, 1], stride=(1, 1))
    assert type(named.grad_fn).__name__ == type(placed.grad_fn).__name__ == "_FewChannelsBackward"
    assert torch.equal(named, placed)


def bound_to_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """Flatten by way of two halves on the leading axis: right for one sample, wrong for more."""
    place, flatten = next((at, node) for at, node in enumerate(model.graph.node) if node.op_type == "Flatten")
    (x,), (y,) = flatten.input, flatten.output
    nodes = [
        onnx.helper.make_node("Reshape", [x, "halves"], ["split"]),
        onnx.helper.make_node("Transpose", ["split"], ["turned"], perm=[1, 0, 2]),
        onnx.helper.make_node("Reshape", ["turned", "whole"], [y]),
    ]
    rest = [*model.graph.node[:place], *nodes, *model.graph.node[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(rest)
    for name, shape in (("halves", [2, -1, 2 * 49]), ("whole", [-1, 4 * 49])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    return model


@pytest.mark.parametrize("faster", [True, False], ids=["any batch", "mapped over pieces"])
def test_an_exported_network_takes_the_faster_way(faster: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 3))
    model = export(network, (1, 9, 9), exporter="old")
    net = load(model if faster else bound_to_one(model))
    assert (net.static_batch is None) == faster
    x = torch.rand(4, 1, 9, 9, requires_grad=True)
    logits = TorchTarget(net).logits(x)
    assert torch.allclose(logits, network(x), atol=1e-5)
    assert ("_FewChannelsBackward" in derivatives(logits.grad_fn)) == faster


def derivatives(node: Any) -> set[str]:
    """Names of the derivatives behind a value."""
    found, left = set(), [node]
    while left:
        node = left.pop()
        if node is not None:
            found.add(type(node).__name__)
            left.extend(following for following, _ in node.next_functions)
    return found


@pytest.mark.parametrize("attack", [PGD(eps=0.03, steps=5), DeepFool(steps=3)])
def test_threads_change_nothing(attack) -> None:
    model, images, labels = several(count=300)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(attack.run(TorchTarget(model), images, labels))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other.adversarials, results[0].adversarials)
        assert torch.equal(other.forward, results[0].forward)


def _break_off() -> None:
    with thread_pool(wanted=True) as pool:
        assert pool is not None
        raise ValueError(f"{torch.get_num_threads()} thread of its own")


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="1 thread of its own"):
            _break_off()
        assert torch.get_num_threads() == 2
        with thread_pool(wanted=False) as pool:
            assert pool is None
    finally:
        torch.set_num_threads(before)
