"""Models that draw random numbers by themselves: drawn in torch, compared where they draw nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jr_onnx.errors import UnsupportedOpsError, VerificationError
from jr_onnx.torchnet import load
from jr_onnx.torchnet.mean_draws import with_mean_draws
from jr_onnx.torchnet.parity import check_parity
from jr_onnx.torchnet.settings import PassSettings
from tests.torchnet.models import dense_weights, parse

X = np.random.default_rng(0).random((6, 6)).astype(np.float32)


def drawing(*lines: str, opset: int = 17, head: str = "", functions: str = "") -> onnx.ModelProto:
    """A network whose input is made of x by some lines that end in u."""
    return parse(
        f"""<ir_version: 8, opset_import: ["" : {opset}{head}]>
        net (float[N, 6] x) => (float[N, 3] y)
        <float ratio = {{0.25}}, bool on = {{1}}, float half = {{0.5}}> {{
            {" ".join(lines)}
            h = Gemm (u, w1, b1)
            a = Relu (h)
            y = Gemm (a, w2, b2)
        }} {functions}""",
        dense_weights(6, 12, 3),
    )


IN_A_FUNCTION = """<domain: "own", opset_import: ["" : 17]>
noisy (v) => (w) { e = RandomNormalLike <scale = 0.3> (v) w = Add (v, e) }"""
AS_CALLED = """<domain: "own", opset_import: ["" : 17]>
noisy <mean, scale> (v) => (w) {
    e = RandomNormalLike <mean: float = @mean, scale: float = @scale> (v)
    w = Add (v, e)
}"""
KINDS = {
    "normal like": (drawing("e = RandomNormalLike <mean = 0.1, scale = 0.3> (x) u = Add (x, e)"), True),
    "uniform like": (drawing("e = RandomUniformLike <low = -0.2, high = 0.4> (x) u = Add (x, e)"), True),
    "normal of a shape": (drawing("e = RandomNormal <shape = [1, 6], scale = 0.3> () u = Add (x, e)"), False),
    "uniform of a shape": (drawing("e = RandomUniform <shape = [1]> () u = Mul (x, e)"), False),
    "dropout": (drawing("u = Dropout (x, ratio, on)"), True),
    "coins": (drawing("c = Bernoulli (x) u = Mul (x, c)"), True),
    "classes": (
        drawing(
            "k = Multinomial <sample_size = 6, dtype = 6> (x)",
            "f = Cast <to = 1> (k) v = Mul (f, half) u = Add (x, v)",
        ),
        True,
    ),
    "in a function": (drawing("u = own.noisy (x)", head=', "own" : 1', functions=IN_A_FUNCTION), True),
    "as a function's call says": (
        drawing("u = own.noisy <mean = 0.4, scale = 0.3> (x)", head=', "own" : 1', functions=AS_CALLED),
        True,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_new_every_time_unless_it_has_a_key(kind: str) -> None:
    model, apart = KINDS[kind]
    net, x = load(model), torch.from_numpy(X)
    assert len(net.draws) == 1
    assert net.draws_apart is apart
    assert any("draws random numbers in every run" in note for note in net.notes)
    assert not torch.equal(net(x), net(x))
    first = net(x, PassSettings(seed=5))
    assert torch.equal(net(x, PassSettings(seed=5)), first)
    assert not torch.equal(net(x, PassSettings(seed=6)), first)
    assert check_parity(net, model, X).passed


@pytest.mark.parametrize("kind", KINDS)
def test_torch_draws_from_the_distribution_of_onnx_runtime(kind: str) -> None:
    model, _ = KINDS[kind]
    net, x = load(model), torch.from_numpy(X)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # ONNX Runtime 1.32 never drops the very first element of a tensor, so the first sample is left out.
    mine = torch.stack([net(x, PassSettings(seed=seed))[1:] for seed in range(600)]).double().numpy()
    theirs = np.stack([session.run(None, {"x": X})[0][1:] for _ in range(600)]).astype(np.float64)
    error = np.sqrt((mine.var(0) + theirs.var(0)) / 600)
    # 15 means, each within five standard errors: of as many normal variables one in 100,000 runs exceeds that.
    assert (np.abs(mine.mean(0) - theirs.mean(0)) <= 5 * error + 1e-6).all()
    ratio = (mine.std(0) + 1e-9) / (theirs.std(0) + 1e-9)
    # The spread of a standard deviation over 600 draws is 3 % for normal values, a few times that for skewed ones.
    assert ((ratio > 0.75) & (ratio < 1.33)).all()


def test_a_copy_with_mean_draws_draws_nothing() -> None:
    for model, _ in KINDS.values():
        still = with_mean_draws(model)
        session = onnxruntime.InferenceSession(still.SerializeToString(), providers=["CPUExecutionProvider"])
        assert np.array_equal(session.run(None, {"x": X})[0], session.run(None, {"x": X})[0])


@pytest.mark.parametrize("kind", KINDS)
def test_torch_agrees_with_onnx_runtime_where_neither_draws(kind: str) -> None:
    check_parity(load(KINDS[kind][0]), KINDS[kind][0], X)


def test_parity_sees_what_is_wrong_beside_the_draws() -> None:
    model, _ = KINDS["normal like"]
    other = onnx.ModelProto()
    other.CopyFrom(model)
    bias = next(tensor for tensor in other.graph.initializer if tensor.name == "b2")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), "b2"))
    with pytest.raises(VerificationError, match="torch and ONNX Runtime disagree"):
        check_parity(load(model), other, X)


def test_a_draw_that_nothing_depends_on_makes_no_model_random() -> None:
    model = drawing("e = RandomNormalLike (x) u = Identity (x)")
    assert load(model).draws == ()


def test_dropout_outside_training_draws_nothing_and_an_open_switch_is_refused() -> None:
    assert load(drawing("u = Dropout (x, ratio)")).draws == ()
    with pytest.raises(UnsupportedOpsError, match="training_mode is not constant"):
        load(drawing("m = ReduceMax <keepdims = 0> (x) t = Cast <to = 9> (m) u = Dropout (x, ratio, t)"))


def test_an_end_is_looked_through_but_for_what_is_drawn() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 3] y) <float ratio = {0.25}, bool on = {1}> {
            z = Gemm (x, w1, b1)
            d = Dropout (z, ratio, on)
            y = Softmax (d)
        }""",
        dense_weights(6, 3),
    )
    assert load(model).logits_name == "d"
