"""Sites with a kappa per channel whose channels ONNX Runtime's optimiser may move: the plain way, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.provenance import SiteRecord
from jr_onnx.rewriter import rewrite
from jr_onnx.rewriter.scopes import main_scope
from jr_onnx.runtime.channels import find_blocks, require_no_transpose
from jr_onnx.runtime.markers import Found, NotFollowedError
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import ExactNet, images
from tests.runtime.support import CPU, assert_same_bits, open_both, options

KAPPAS = tuple(float(channel % 5) for channel in range(8))
LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def transposed(between: str | None = None) -> onnx.ModelProto:
    """Return (N, 8, 8, 8) -> channels last -> [an operator] -> Relu -> channels first: all axes have the same size."""
    net = ExactNet(30)
    x = net.add("Transpose", [net.conv("x", 3, 8)], perm=LAST)
    if between == "Add":
        x = net.add("Add", [x, net.constant(np.float32(1))])
    elif between == "Concat":
        x = net.add("Slice", [net.add("Concat", [x, x], axis=1), *(net.constant([n]) for n in (0, 8, 1))])
    return net.model([net.add("Transpose", [net.relu(x)], perm=FIRST)], ["N", 3, 8, 8])


def site_of(model: onnx.ModelProto) -> str:
    return next(str(node.output[0]) for node in model.graph.node if node.op_type == "Relu")


@pytest.mark.parametrize("lowering", ["where", "custom"])
@pytest.mark.parametrize("between", [None, "Add", "Concat"])
def test_a_transpose_in_front_of_a_site_leads_to_the_plain_way(between: str | None, lowering: Any) -> None:
    model = transposed(between)
    data = rewrite(model, {site_of(model): KAPPAS}, lowering=lowering)[0].SerializeToString()
    session = InferenceSession(data, options(), CPU)
    assert session.retrofit.mode == "plain"
    assert session.retrofit.reason == (
        f"site {site_of(model)} has a kappa per channel, and ONNX Runtime may move a Transpose past it"
    )
    assert_same_bits(session, InferenceSession(data, options(), CPU, retrofit="plain"), images())
    one = InferenceSession(rewrite(model, 1.0)[0].SerializeToString(), options(), CPU)
    assert one.retrofit.mode == "optimised", "one kappa does not care where channels are"


def test_a_transpose_in_front_of_a_convolution_does_not_matter() -> None:
    net = ExactNet(31)
    x = net.add("Transpose", [net.add("Transpose", ["x"], perm=LAST)], perm=[0, 3, 2, 1])
    first = net.relu(net.conv(x, 3, 8))
    shuffled = net.add("Reshape", [first, net.constant([0, 2, 4, 8, 8])])
    shuffled = net.add("Transpose", [shuffled], perm=[0, 2, 1, 3, 4])
    second = net.relu(net.conv(net.add("Reshape", [shuffled, net.constant([0, 8, 8, 8])]), 8, 8))
    fast, plain = open_both(net.model([second], ["N", 3, 8, 8]), {first: KAPPAS, second: KAPPAS[::-1]})
    assert_same_bits(fast, plain, images())


def quantised() -> tuple[onnx.ModelProto, str]:
    """Return Conv -> quantised -> Relu, whose convolution ONNX Runtime makes a QLinearConv with the channels last."""
    net = ExactNet(32)
    scale, zero = net.constant(np.float32(1)), net.constant(np.uint8(128))

    def twice(x: str) -> str:
        return net.add("DequantizeLinear", [net.add("QuantizeLinear", [x, scale, zero]), scale, zero])

    weight = net.constant(np.random.default_rng(0).integers(-1, 2, (8, 3, 3, 3)).astype(np.int8))
    weight = net.add("DequantizeLinear", [weight, scale, net.constant(np.int8(0))])
    first = net.relu(twice(net.add("Conv", [twice("x"), weight], pads=[1] * 4)))
    return net.model([twice(first)], ["N", 3, 8, 8]), first


def test_quantised_convolutions_give_the_bits_of_the_plain_way() -> None:
    model, name = quantised()
    data = rewrite(model, {name: KAPPAS}, lowering="where")[0].SerializeToString()
    session = InferenceSession(data, options(), CPU)
    if session.retrofit.mode == "plain":  # not on every processor
        assert session.retrofit.reason.endswith("moved the channels for its operator QLinearConv")
    assert_same_bits(session, InferenceSession(data, options(), CPU, retrofit="plain"), images())


def site(kappa: Any, rank: int | None = 4) -> SiteRecord:
    return SiteRecord(
        id="act", form="relu", dtype="float32", scope="", output="y", kappa=kappa, cap=None, lowering="where", nodes=1,
        original="", rank=rank,
    )  # fmt: skip


def found_in(*nodes: onnx.NodeProto, record: SiteRecord, weights: int = 16) -> tuple[onnx.ModelProto, list[Found]]:
    """Return a model of nodes, the last of which is a marker."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.zeros((weights, 1, 1, 1), np.float32), "w")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    fused = any(item.name == "activation" for item in nodes[-1].attribute)
    return model, [Found(main_scope(model), len(nodes) - 1, record, fused)]


def blocked(result: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], [result], domain="com.microsoft.nchwc", **attributes)


def test_blocks_are_found_behind_a_chain() -> None:
    record = site((0.5, 1.0, 2.0))
    add = helper.make_node("Add", ["a", "a"], ["b"])
    model, found = found_in(blocked("a"), add, helper.make_node("HardSigmoid", ["b"], ["y"]), record=record)
    assert find_blocks(model, found, lambda: 16) == {(found[0].scope, 2): 16}


def test_behind_a_reordering_channels_are_where_they_were() -> None:
    reorder = helper.make_node("ReorderOutput", ["a"], ["b"], domain="com.microsoft.nchwc")
    marker = helper.make_node("HardSigmoid", ["b"], ["y"])
    assert not find_blocks(*found_in(blocked("a"), reorder, marker, record=site((0.5, 1.0))), lambda: 16)
    assert not find_blocks(*found_in(blocked("y", activation="HardSigmoid"), record=site(0.5, None)), lambda: 16)


@pytest.mark.parametrize(
    ("nodes", "record", "reason"),
    [
        ([blocked("a"), helper.make_node("Erf", ["a"], ["b"]), helper.make_node("HardSigmoid", ["b"], ["y"])],
         site((0.5, 1.0)), "and Erf works on ONNX Runtime's blocked layout"),
        ([blocked("y", activation="HardSigmoid")], site((0.5, 1.0), 2), "that lie along another axis than 1"),
        ([blocked("y", activation="HardSigmoid")], site(17 * (0.5,)), "its convolution yields 16, expected 32"),
        ([helper.make_node("QLinearConv", ["x"], ["a"], domain="com.microsoft", channels_last=1),
          helper.make_node("HardSigmoid", ["a"], ["y"])], site((0.5, 1.0)), "the channels for its operator QLinear"),
        ([helper.make_node("NhwcFusedConv", ["x"], ["y"], domain="com.microsoft", activation="HardSigmoid")],
         site((0.5, 1.0)), "moved the channels for its operator NhwcFusedConv"),
        ([helper.make_node("Other", ["x"], ["y"], domain="com.microsoft", activation="HardSigmoid")],
         site((0.5, 1.0)), "is fused into an operator Other"),
    ],
)  # fmt: skip
def test_channels_that_may_be_anywhere_are_refused(nodes: Any, record: SiteRecord, reason: str) -> None:
    with pytest.raises(NotFollowedError, match=reason):
        find_blocks(*found_in(*nodes, record=record), lambda: 16)


@pytest.mark.parametrize("stop", ["Conv", "Gemm", "MatMul"])
def test_no_transpose_passes_an_operator_that_sums_over_an_axis(stop: str) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["a"]), helper.make_node(stop, ["a", "w"], ["b"])]
    marker = helper.make_node("HardSigmoid", ["b"], ["y"])
    require_no_transpose(*found_in(*nodes, marker, record=site((0.5, 1.0))))


@pytest.mark.parametrize("between", ["Mul", "QuantizeLinear", "Softmax", "Reshape"])
def test_a_transpose_may_pass_any_other_operator(between: str) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["a"]), helper.make_node(between, ["a", "w"], ["b"])]
    marker = helper.make_node("HardSigmoid", ["b"], ["y"])
    with pytest.raises(NotFollowedError, match="may move a Transpose"):
        require_no_transpose(*found_in(*nodes, marker, record=site((0.5, 1.0))))


def test_a_call_of_a_function_may_hold_a_transpose() -> None:
    other = helper.make_node("Transpose", ["x"], ["unread"])
    call, marker = helper.make_node("f", ["x"], ["a"], domain="pkg"), helper.make_node("HardSigmoid", ["a"], ["y"])
    with pytest.raises(NotFollowedError, match="may move a Transpose"):
        require_no_transpose(*found_in(other, call, marker, record=site((0.5, 1.0))))
    require_no_transpose(*found_in(call, marker, record=site((0.5, 1.0))))
