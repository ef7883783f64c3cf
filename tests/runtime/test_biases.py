"""On CUDA a jump takes the bias of its convolution along, and a residual sum: in the right places, with the same bits.

The files run on the CPU here, on networks whose arithmetic is exact, so every correct evaluation gives the same bits.
`tests/cuda` opens them on the CUDA provider.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.errors import InputError, OpLibraryError
from jr_onnx.kappa import KappaPlan, RandomKappa
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime.saved import Mark, optimize
from jr_onnx.runtime.session import InferenceSession
from tests.runtime.exact_nets import KAPPA, ExactNet, convnet, images

CPU = ["CPUExecutionProvider"]


def for_cuda(folder: Path, model: onnx.ModelProto, kappa: Any = KAPPA, **rewriting: Any) -> tuple[Mark, Path, Path]:
    """Retrofit a model and optimise it for CUDA; return the mark, the retrofit and the result."""
    retrofit, result = folder / "model.jr.onnx", folder / "model.cuda.onnx"
    onnx.save(rewrite(model, kappa, **rewriting)[0], str(retrofit))
    return optimize(retrofit, result, target="cuda"), retrofit, result


def tails(path: Path) -> Counter[str]:
    """Count the jumps of a file by what they take along."""
    found: Counter[str] = Counter()
    for node in onnx.load(str(path)).graph.node:
        if node.op_type == "BiasJumpRelu":
            found["residual" if len(node.input) > 2 and node.input[2] else "bias"] += 1
        elif node.op_type in ("JumpRelu", "Add"):
            found[node.op_type] += 1
    return found


def assert_same(retrofit: Path, result: Path, feed: dict[str, Any]) -> None:
    plain = InferenceSession(str(retrofit), providers=CPU, retrofit="plain").run(None, feed)
    session = InferenceSession(str(result), providers=CPU)
    assert session.retrofit.mode == "saved"
    for one, other in zip(plain, session.run(None, feed), strict=True):
        assert np.any(one), "a network of zeros proves nothing"
        np.testing.assert_array_equal(one, other)


def test_a_network_with_a_residual_block(tmp_path: Path) -> None:
    mark, retrofit, result = for_cuda(tmp_path, convnet())
    assert (mark.jumps, mark.fused, mark.target) == (6, 5, "cuda")
    # stem, block, depthwise, stride; the residual sum; the Gemm's jump stays alone, and no Add is left
    assert tails(result) == {"bias": 4, "residual": 1, "JumpRelu": 1}
    assert all(len(node.input) == 2 for node in onnx.load(str(result)).graph.node if node.op_type == "Conv")
    assert_same(retrofit, result, images())


@pytest.mark.parametrize(
    "kappa",
    [
        KappaPlan(KAPPA, input_name="kappa"),
        {"Relu_1": 2.0, ".*": 3.0},
        RandomKappa(0.2, 0.6, source="op"),
        RandomKappa(0.2, 0.6, per="site", source="op"),
        RandomKappa(0.2, 0.6, per="site", source="graph"),
        RandomKappa(0.2, 0.6),
    ],
    ids=["input", "map", "op", "op per site", "graph per site", "session"],
)
def test_every_source_of_kappa(tmp_path: Path, kappa: Any) -> None:
    """On integers every kappa in [0.2, 0.6) gives the same bits, so random ones can be compared too."""
    mark, retrofit, result = for_cuda(tmp_path, convnet(), kappa)
    assert mark.fused == 5
    assert_same(retrofit, result, images())


def test_a_cap_stays(tmp_path: Path) -> None:
    net = ExactNet(3)
    x = net.relu6(net.conv("x", 3, 16))
    x = net.add("Neg", [net.relu6(net.conv(x, 16, 16, groups=16), cap=4.0)])  # on the output it would be a clamp
    mark, retrofit, result = for_cuda(tmp_path, net.model([x], ["N", 3, 8, 8]))
    assert mark.fused == 2
    assert_same(retrofit, result, images())


def test_of_two_convolutions_that_are_summed_one_gives_its_bias(tmp_path: Path) -> None:
    net = ExactNet(4)
    x = net.relu(net.add("Add", [net.conv("x", 3, 16), net.conv("x", 3, 16, size=1)]))
    mark, retrofit, result = for_cuda(tmp_path, net.model([x], ["N", 3, 8, 8]))
    assert (mark.fused, tails(result)["residual"]) == (1, 1)
    assert sorted(len(node.input) for node in onnx.load(str(result)).graph.node if node.op_type == "Conv") == [2, 3]
    assert_same(retrofit, result, images())


def test_a_convolution_without_bias_takes_a_residual_all_the_same(tmp_path: Path) -> None:
    net = ExactNet(5)
    plain = net.add("Conv", ["x", net.weight((3, 3, 3, 3), 0.5)], pads=[1] * 4)
    x = net.relu(net.add("Add", ["x", plain]))
    mark, retrofit, result = for_cuda(tmp_path, net.model([x], ["N", 3, 8, 8]))
    assert (mark.fused, tails(result)) == (1, {"residual": 1})
    assert_same(retrofit, result, images())


def test_a_transposed_convolution(tmp_path: Path) -> None:
    net = ExactNet(6)
    weight, bias = net.weight((3, 4, 2, 2), 0.7), net.constant(np.arange(4, dtype=np.float32))
    x = net.relu(net.add("ConvTranspose", ["x", weight, bias], strides=[2, 2]))
    mark, retrofit, result = for_cuda(tmp_path, net.model([x], ["N", 3, 8, 8]))
    assert mark.fused == 1
    assert_same(retrofit, result, images())


def _read_twice(net: ExactNet) -> list[str]:
    z = net.conv("x", 3, 16)
    return [net.add("Add", [net.relu(z), z])]


def _graph_output(net: ExactNet) -> list[str]:
    z = net.conv("x", 3, 16)
    return [net.relu(z), z]


def _broadcast_residual(net: ExactNet) -> list[str]:
    scale = net.constant(np.ones((1, 16, 1, 1), np.float32))
    row = net.add("Mul", [net.add("GlobalMaxPool", [net.conv("x", 3, 16)]), scale])
    return [net.relu(net.add("Add", [net.conv("x", 3, 16), row]))]


def _twice_the_same(net: ExactNet) -> list[str]:
    z = net.conv("x", 3, 16)
    return [net.relu(net.add("Add", [z, z]))]


def _read_in_a_branch(net: ExactNet) -> list[str]:
    z = net.conv("x", 3, 16)
    branches = {}
    for name, op_type in (("then_branch", "Neg"), ("else_branch", "Identity")):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([helper.make_node(op_type, [z], [name])], name, [], [value])
    chosen = net.add("If", [net.constant(np.array(True))], **branches)
    return [net.add("Add", [net.relu(z), chosen])]


@pytest.mark.parametrize(
    "build",
    [_read_twice, _graph_output, _broadcast_residual, _twice_the_same, _read_in_a_branch],
    ids=lambda f: f.__name__,
)
def test_what_another_node_reads_stays(tmp_path: Path, build: Any) -> None:
    net = ExactNet(7)
    mark, retrofit, result = for_cuda(tmp_path, net.model(build(net), ["N", 3, 8, 8]))
    assert (mark.jumps, mark.fused) == (1, 0)
    assert_same(retrofit, result, images())


def test_float16_needs_no_conversions(tmp_path: Path) -> None:
    """ONNX Runtime's CPU session would put Casts around everything."""
    model = convnet()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    mark, retrofit, result = for_cuda(tmp_path, model)
    assert mark.fused == 5
    assert not any(node.op_type == "Cast" for node in onnx.load(str(result)).graph.node)
    assert_same(retrofit, result, {"x": images()["x"].astype(np.float16)})


def test_normalisation_is_folded_first(tmp_path: Path) -> None:
    net = ExactNet(8)
    z = net.conv("x", 3, 16)
    numbers = [net.constant(np.full(16, value, np.float32)) for value in (1, 2, 0, 1)]
    x = net.relu(net.add("BatchNormalization", [z, *numbers], epsilon=0.0))
    mark, retrofit, result = for_cuda(tmp_path, net.model([x], ["N", 3, 8, 8]))
    assert mark.fused == 1
    assert [node.op_type for node in onnx.load(str(result)).graph.node] == ["Conv", "BiasJumpRelu"]
    assert_same(retrofit, result, images())


def test_the_result_needs_the_op_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, retrofit, result = for_cuda(tmp_path, convnet())
    with pytest.raises(InputError, match="written with operators of the op library"):
        optimize(retrofit, result, target="cuda", use_library=False, force=True)
    monkeypatch.setattr("jr_onnx.runtime.ops_library._FOLDER", tmp_path)
    with pytest.raises(OpLibraryError, match="the optimised model needs the op library"):
        InferenceSession(str(result), providers=CPU)
    with pytest.raises(OpLibraryError, match="is not built"):
        optimize(retrofit, tmp_path / "other.onnx", target="cuda")


def test_weights_of_sub_graphs_come_along(tmp_path: Path) -> None:
    """ONNX Runtime writes them as external data too, which must end up in the file."""
    net = ExactNet(9)
    z = net.relu(net.conv("x", 3, 16))
    weights = numpy_helper.from_array(np.ones((16, 16, 64), np.float32), "big")
    branches = {}
    for name in ("then_branch", "else_branch"):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        nodes = [
            helper.make_node("ReduceSum", ["big"], [f"{name}_sum"]),
            helper.make_node("Add", [z, f"{name}_sum"], [name]),
        ]
        branches[name] = helper.make_graph(nodes, name, [], [value], [weights])
    flag = net.add("Cast", [net.add("ReduceMax", ["x"], keepdims=0)], to=TensorProto.BOOL)
    retrofit = tmp_path / "model.jr.onnx"
    onnx.save(rewrite(net.model([net.add("If", [flag], **branches)], ["N", 3, 8, 8]), KAPPA)[0], str(retrofit))
    for target in ("cpu", "cuda"):
        result = tmp_path / f"{target}.onnx"
        optimize(retrofit, result, target=target)  # type: ignore[arg-type] # the two targets there are
        assert_same(retrofit, result, images())
