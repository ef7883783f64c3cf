"""Choosing the logits, following the batch, refusing what cannot be evaluated, all of it at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from jr_onnx.errors import InputError, ModelError, RefusalError, UnsupportedOpsError
from jr_onnx.rewriter import fuse
from jr_onnx.torchnet import SiteBackward, check_parity, load
from tests.torchnet.models import bound_to_one, convolutional, dense_weights, mlp, parse


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("reshape", "batch"),
    [
        ([1, 144], 1),
        ([1, -1], 1),
        ([-1, 144], 1),
        ([0, -1], 1),
        ([4, 144], 4),
        ([4, -1], 4),
        ([0, 144], "N"),
        ([1, 144], "N"),
    ],
)
def test_any_batch_runs_whatever_the_export_fixed(reshape: list[int], batch: int | str) -> None:
    model = convolutional(reshape, batch=batch)
    net = load(model)
    assert net.static_batch is None
    whole = net(_images(5))
    # The order of summation in a matrix product may depend on the number of its rows: a few units in the last place.
    single = torch.cat([net(image[None]) for image in _images(5)])
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)
    if batch != "N" or reshape[0] == 0:
        assert check_parity(net, model, _images(5)).passed


def test_graph_bound_to_its_batch_is_run_in_pieces() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 6] x) => (float[2, 3] logits) {
            h = Gemm (x, w1, b1)
            a = Relu (h)
            folded = Reshape (a, merged)
            turned = Transpose <perm = [1, 0, 2]> (folded)
            back = Transpose <perm = [1, 0, 2]> (turned)
            flat = Reshape (back, split)
            both = Add (flat, rows)
            logits = Gemm (both, w2, b2)
        }""",
        {
            **dense_weights(6, 12, 3),
            "merged": np.array([4, 2, 3], dtype=np.int64),
            "split": np.array([2, 12], dtype=np.int64),
            "rows": np.zeros((2, 12), dtype=np.float32),
        },
    )
    net = load(model)
    assert net.static_batch == 2
    assert any("batches of 2" in note for note in net.notes)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    logits = net(x)
    assert logits.shape == (5, 3)
    torch.testing.assert_close(logits[:2], net(x[:2]), rtol=1e-5, atol=1e-5)
    assert check_parity(net, model, x).passed
    x.requires_grad_()
    (grad,) = torch.autograd.grad(net(x).sum(), x)
    assert (grad != 0).any(dim=1).all()


def test_mapped_pieces_are_the_pieces_one_after_the_other() -> None:
    """An observer wants plain tensors, so that it is called piece by piece: the same values, another way."""
    net = load(bound_to_one())
    assert net.static_batch == 1
    assert any("mapped over pieces" in note for note in net.notes)
    net.set_kappa(0.2)
    for choice in (SiteBackward.exact(), SiteBackward.straight_through(), SiteBackward.smooth(3.0)):
        net.set_backward(choice)
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        mapped = net(x)
        with net.observing(lambda *_: None):
            looped = net(x)
        # The same products, summed in another order where the batch is mapped.
        torch.testing.assert_close(mapped, looped, rtol=1e-5, atol=1e-5)
        (one,) = torch.autograd.grad(mapped.square().sum(), x)
        (other,) = torch.autograd.grad(looped.square().sum(), x)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_samples_that_see_each_other_are_never_batched() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 3] logits) {
            mean = ReduceMean <axes = [0], keepdims = 1> (x)
            centred = Sub (x, mean)
            moved = Add (centred, b0)
            logits = Gemm (moved, w1, b1)
        }""",
        {**dense_weights(6, 3), "b0": np.ones(6, dtype=np.float32)},
    )
    net = load(model)
    assert net.static_batch == 1
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), torch.cat([net(row[None]) for row in x]), rtol=1e-5, atol=1e-5)


def test_logits_are_taken_before_a_final_softmax() -> None:
    model = convolutional([0, -1], batch="N", softmax=True)
    net = load(model)
    assert (net.output_name, net.logits_name, net.tail) == ("probabilities", "scores", ("Softmax",))
    assert any("before the final softmax" in note for note in net.notes)
    whole = load(model, logits_from="output")
    assert any("gradients vanish" in note for note in whole.notes)
    x = _images(3)
    torch.testing.assert_close(net(x).softmax(1), whole(x), rtol=1e-6, atol=1e-7)
    assert check_parity(net, model, x).passed
    assert check_parity(whole, model, x).passed


def test_output_can_be_chosen() -> None:
    net = load(mlp(), output="h1")
    assert (net.output_name, net.num_classes) == ("h1", 16)
    with pytest.raises(InputError, match="no value 'nothing'; its outputs are 'logits'"):
        load(mlp(), output="nothing")


def test_first_floating_matrix_is_the_default_output() -> None:
    model = mlp()
    best = helper.make_node("ArgMax", ["logits"], ["label"], axis=1)
    grid = helper.make_node("Reshape", ["a1", "grid_shape"], ["grid"])
    model.graph.node.extend([best, grid])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 4, 4]), "grid_shape"))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N", 1])
    grid_out = helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["N", 4, 4])
    outputs = [label, grid_out, model.graph.output[0]]
    copies = [onnx.ValueInfoProto.FromString(item.SerializeToString()) for item in outputs]
    del model.graph.output[:]
    model.graph.output.extend(copies)
    assert load(model).output_name == "logits"


def test_all_unsupported_operators_are_listed_before_anything_runs() -> None:
    model = mlp()
    model.graph.node[1].op_type = "NonMaxSuppression"
    model.graph.node[3].op_type = "Einsum"
    model.graph.node[3].attribute.append(helper.make_attribute("equation", "ij->ij"))
    del model.graph.node[3].input[1:]
    model.graph.node[3].input[0] = "rolled"
    model.graph.node.insert(3, helper.make_node("GridSample", ["h2", "h2"], ["rolled"], name="sampler"))
    with pytest.raises(UnsupportedOpsError) as caught:
        load(model)
    assert caught.value.ops == (
        "GridSample (opset 17, node 'sampler')",
        "NonMaxSuppression (opset 17, node 'node1')",
    )
    assert "black-box" in str(caught.value).lower()


def test_unsupported_use_of_a_known_operator_names_its_reason() -> None:
    model = mlp()
    node = helper.make_node("BatchNormalization", ["h1", "b1", "b1", "b1", "b1"], ["n"], name="bn", training_mode=1)
    model.graph.node.insert(1, node)
    model.graph.node[2].input[0] = "n"
    with pytest.raises(UnsupportedOpsError, match="training mode") as caught:
        load(model)
    assert caught.value.ops == ("BatchNormalization (opset 17, node 'bn': training mode)",)


def test_operator_that_the_logits_do_not_need_is_no_obstacle() -> None:
    model = mlp()
    model.graph.node.append(helper.make_node("NonMaxSuppression", ["a1", "a1"], ["boxes"]))
    model.graph.output.append(helper.make_tensor_value_info("boxes", TensorProto.INT64, None))
    assert load(model).num_classes == 3


@pytest.mark.parametrize("opset", [6, 99])
def test_unknown_operator_set_is_refused(opset: int) -> None:
    model = mlp()
    model.opset_import[0].version = opset
    with pytest.raises((UnsupportedOpsError, ModelError)):
        load(model)


def test_nodes_in_any_order_are_put_in_order() -> None:
    model, expected = mlp(), load(mlp())
    nodes = list(reversed(model.graph.node))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(model)(x), expected(x))


def test_integer_image_has_gradients() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (uint8[N, 6] x) => (float[N, 3] logits) {
            f = Cast <to = 1> (x)
            logits = Gemm (f, w1, b1)
        }""",
        dense_weights(6, 3),
    )
    net = load(model)
    assert any("uint8" in note for note in net.notes)
    x = torch.randint(0, 256, (3, 6), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    (grad,) = torch.autograd.grad(net(x).sum(), x)
    assert grad.abs().sum() > 0
    assert check_parity(net, model, x.detach()).passed


def test_model_without_a_gradient_says_so_and_gives_zero() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 3] logits) {
            whole = Cast <to = 7> (x)
            f = Cast <to = 1> (whole)
            logits = Gemm (f, w1, b1)
        }""",
        dense_weights(6, 3),
    )
    net = load(model)
    assert any("no gradient leads" in note for note in net.notes)
    x = torch.full((2, 6), 3.5, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x).sum(), x)
    assert torch.equal(grad, torch.zeros_like(x))
    assert check_parity(net, model, x.detach()).passed


def test_free_image_size_is_accepted() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 1, H, W] x) => (float[N, 3] logits) {
            c = Conv (x, k)
            a = Relu (c)
            p = GlobalAveragePool (a)
            f = Flatten (p)
            logits = Gemm (f, w1, b1)
        }""",
        {"k": np.ones((4, 1, 3, 3), dtype=np.float32), **dense_weights(4, 3)},
    )
    net = load(model)
    assert net.input_shape == (None, 1, None, None)
    assert net(torch.zeros(2, 1, 9, 12)).shape == (2, 3)
    assert load(model, input_shape=(None, 1, 16, 16)).input_shape == (None, 1, 16, 16)
    with pytest.raises(InputError, match="contradicts"):
        load(model, input_shape=(None, 3, 16, 16))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.graph.input.append(helper.make_tensor_value_info("y", 1, [1])), "2 inputs"),
        (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "does not declare a shape"),
        (lambda m: m.graph.node[0].input.__setitem__(1, "missing"), "which nothing defines"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "h2"), "depends on itself"),
        (lambda m: m.graph.output[0].type.tensor_type.__setattr__("elem_type", 7), "no output of a floating type"),
        (lambda m: m.graph.node[4].input.__setitem__(0, "a1"), "cannot be evaluated"),
        (lambda m: m.graph.ClearField("node"), "no nodes"),
    ],
)
def test_broken_model_is_refused(change: object, said: str) -> None:
    model = mlp()
    change(model)  # type: ignore[operator]
    with pytest.raises(ModelError, match=said):
        load(model)


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"no model at all" * 10)
    with pytest.raises(ModelError, match=r"noise\.onnx"):
        load(path)
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "absent.onnx")


def test_external_data_are_read_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(mlp(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    net = load(path)
    assert torch.equal(net(x), load(mlp())(x))
    assert check_parity(net, path, x).passed
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="is not in"):
        load(path)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_fused_jump_along_another_axis_than_that_of_channels_is_refused(axis: int) -> None:
    """Its operand is as long along both axes, so that a kappa along the wrong one would not be noticed."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,4] x) => (float[N,4] y) {
  c = Greater(x, t) r = Where(c, x, zero) y = ReduceMean<axes = [2], keepdims = 0>(r)
}""")
    thresholds = np.linspace(0.1, 0.9, 4, dtype=np.float32)
    for name, value in (("t", thresholds.reshape(-1, 1) if axis == 1 else thresholds), ("zero", np.float32(0))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    fused, _ = fuse(model, lowering="where")
    images = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
    if axis == 1:
        torch.testing.assert_close(load(fused)(images), load(model)(images), rtol=0, atol=0)
        return
    with pytest.raises(RefusalError, match="its thresholds lie along axis 2"):
        load(fused)
