"""Jumps that are put in after optimisation give the same bits as the plain way, in graphs of every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.session import InferenceSession
from jr_onnx.semantics import jump_relu
from tests.runtime.exact_nets import KAPPA, ExactNet, convnet, images
from tests.runtime.support import CPU, assert_same_bits, open_both, options


@pytest.fixture(params=["library", "standard nodes"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test with this fixture runs with the op library and without."""
    if request.param == "library":
        return True
    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", Path("/nowhere"))
    return False


@pytest.mark.parametrize("lowering", ["where", "thresholded", "custom"])
def test_both_ways_give_the_same_bits(lowering: str, library: bool) -> None:
    fast, plain = open_both(convnet(), KAPPA, lowering=lowering, target="cpu")
    assert fast.retrofit.jumps == fast.retrofit.sites == 6
    assert (fast.retrofit.library is not None) == library
    assert bool(fast.retrofit.library_problem) != library
    for count in (1, 5):  # the batch is dynamic
        assert_same_bits(fast, plain, images(count))


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 21, 22])
def test_every_opset(opset: int, library: bool) -> None:
    fast, plain = open_both(convnet(opset, opset=opset), KAPPA)
    assert_same_bits(fast, plain, images())


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_the_callers_level_of_optimisation_is_kept(level: str) -> None:
    wanted = getattr(onnxruntime.GraphOptimizationLevel, level)
    data = rewrite(convnet(), KAPPA)[0].SerializeToString()
    session = InferenceSession(data, options(graph_optimization_level=wanted), CPU)
    assert session.retrofit.mode == "optimised"
    plain = InferenceSession(data, options(), CPU, retrofit="plain")
    assert_same_bits(session, plain, images())


def test_the_jump_is_strict_and_where_it_should_be() -> None:
    """At an integer kappa exact arithmetic meets z = kappa; the original's own pre-activations say what is right."""
    net = ExactNet(3)
    z = net.conv("x", 3, 32)
    model = net.model([z, net.relu(z)], ["N", 3, 8, 8])
    session = InferenceSession(rewrite(model, KAPPA)[0].SerializeToString(), options(), CPU)
    before, after = session.run(None, images())
    assert np.any(before == KAPPA)
    np.testing.assert_array_equal(after, jump_relu(before, KAPPA))


@pytest.mark.parametrize("cap", [6.0, 3.0, 2.0])
def test_caps_above_at_and_below_kappa(cap: float, library: bool) -> None:
    net = ExactNet(5)
    x = net.relu6(net.conv("x", 3, 32), cap)
    x = net.relu6(net.add("Add", [net.conv(x, 32, 32), x]), cap)
    fast, plain = open_both(net.model([net.relu6(net.conv(x, 32, 8), cap)], ["N", 3, 8, 8]), KAPPA)
    results = assert_same_bits(fast, plain, images())
    assert results[0].max() == cap


def test_every_site_gets_its_own_kappa(library: bool) -> None:
    ids = ["Relu_1", "Relu_3", "Relu_6", "Relu_8", "Relu_11", "Relu_14"]
    fast, plain = open_both(convnet(), {name: float(index) for index, name in enumerate(ids)})
    assert_same_bits(fast, plain, images())
    other, _ = open_both(convnet(), dict.fromkeys(ids, 0.0))
    assert np.any(other.run(None, images())[0] != fast.run(None, images())[0])


def test_two_sites_on_one_tensor_are_not_merged(library: bool) -> None:
    net = ExactNet(6)
    z = net.conv("x", 3, 32)
    names = [net.relu(z), net.relu(z)]
    fast, plain = open_both(net.model(names, ["N", 3, 8, 8]), {names[0]: 1.0, names[1]: 4.0})
    one, two = assert_same_bits(fast, plain, images())
    assert set(np.unique(one)) - set(np.unique(two)) == {2.0, 3.0, 4.0}


def test_a_quantiser_does_not_swallow_the_site(library: bool) -> None:
    """ONNX Runtime drops a Relu in front of a quantiser whose range starts at 0; the jump must stay."""
    net = ExactNet(7)
    x = net.relu(net.conv("x", 3, 16))
    scale, zero = net.constant(np.float32(1)), net.constant(np.uint8(0))
    x = net.add("DequantizeLinear", [net.add("QuantizeLinear", [x, scale, zero]), scale, zero])
    fast, plain = open_both(net.model([net.conv(x, 16, 8)], ["N", 3, 8, 8]), KAPPA)
    assert_same_bits(fast, plain, images())


def test_a_relu_before_a_clip_is_not_merged_with_it(library: bool) -> None:
    net = ExactNet(8)
    z = net.relu(net.conv("x", 3, 16))
    x = net.add("Clip", [z, net.constant(np.float32(1)), net.constant(np.float32(9))])
    fast, plain = open_both(net.model([x], ["N", 3, 8, 8]), KAPPA)
    (result,) = assert_same_bits(fast, plain, images())
    assert result.min() == 1


def test_the_models_own_hard_sigmoid_is_left_alone() -> None:
    net = ExactNet(9)
    x = net.add("HardSigmoid", [net.conv("x", 3, 16)], alpha=2.0, beta=-7.5)
    fast, plain = open_both(net.model([net.relu(net.conv(x, 16, 8)), x], ["N", 3, 8, 8]), 0.5)
    for left, right in zip(fast.run(None, images()), plain.run(None, images()), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("op_type", ["Max", "FusedConv", "FusedGemm"])
def test_other_forms_of_relu(op_type: str, library: bool) -> None:
    net = ExactNet(10)
    weight = net.weight((16, 3, 3, 3))
    if op_type == "FusedConv":
        x = net.add(op_type, ["x", weight], domain="com.microsoft", activation="Relu", pads=[1] * 4)
    elif op_type == "FusedGemm":
        flat = net.add("Flatten", [net.conv("x", 3, 4)])
        bias = net.weight((16,))
        x = net.add(op_type, [flat, net.weight((256, 16)), bias], domain="com.microsoft", activation="Relu")
    else:
        z = net.conv("x", 3, 16)
        x = net.add("Max", [net.constant(np.float32(0)), z])
    fast, plain = open_both(net.model([x], ["N", 3, 8, 8], (("com.microsoft", 1),)), KAPPA)
    assert_same_bits(fast, plain, images())


def function_net() -> onnx.ModelProto:
    """A function with a Conv and a Relu, called twice, once from another function."""
    net = ExactNet(11)
    body = [helper.make_node("Conv", ["a", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["b"], name="r")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("pkg", 1)]
    net.functions.append(helper.make_function("pkg", "block", ["a", "w"], ["b"], body, imports))
    inner = [helper.make_node("block", ["a", "w"], ["b"], domain="pkg")]
    net.functions.append(helper.make_function("pkg", "outer", ["a", "w"], ["b"], inner, imports))
    x = net.relu(net.conv("x", 3, 16))
    x = net.add("block", [x, net.weight((16, 16, 3, 3))], domain="pkg")
    x = net.add("outer", [x, net.weight((16, 16, 3, 3))], domain="pkg")
    return net.model([x], ["N", 3, 8, 8], (("pkg", 1),))


@pytest.mark.parametrize("plan", [KAPPA, KappaPlan(kappa=KAPPA, input_name="k")])
def test_a_site_in_a_function_stands_at_every_call(plan: Any, library: bool) -> None:
    fast, plain = open_both(function_net(), plan)
    assert fast.retrofit.sites == 2
    assert fast.retrofit.jumps == 3
    assert_same_bits(fast, plain, images())


def branching_net() -> onnx.ModelProto:
    net = ExactNet(12)
    x = net.relu(net.conv("x", 3, 16))
    branches = {}
    for name, shift in (("then_branch", 1.0), ("else_branch", -1.0)):
        shift_name = net.constant(np.float32(shift))
        nodes = [
            helper.make_node("Add", [x, shift_name], [f"{name}_a"]),
            helper.make_node("Relu", [f"{name}_a"], [f"{name}_b"], name=f"{name}_relu"),
        ]
        value = helper.make_tensor_value_info(f"{name}_b", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(nodes, name, [], [value])
    total = net.add("ReduceSum", ["x"], keepdims=0)
    positive = net.add("Greater", [total, net.constant(np.float32(0))])
    return net.model([net.add("If", [positive], **branches)], ["N", 3, 8, 8])


@pytest.mark.parametrize("plan", [KAPPA, KappaPlan(kappa=KAPPA, input_name="k")])
def test_sites_in_both_branches(plan: Any, library: bool) -> None:
    fast, plain = open_both(branching_net(), plan)
    sums = set()
    for seed in range(4):
        feed = images(seed=seed)
        sums.add(bool(feed["x"].sum() > 0))
        assert_same_bits(fast, plain, feed)
    assert sums == {True, False}


def test_an_older_onnx_runtime_takes_everything_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.24 external data cannot come from memory."""
    for module in ("skeleton", "optimizer"):
        monkeypatch.setattr(f"jr_onnx.runtime.{module}.can_take_files", lambda: False)
    fast, plain = open_both(convnet(), KAPPA)
    assert_same_bits(fast, plain, images())
