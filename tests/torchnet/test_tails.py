"""Where the logits are: behind everything that keeps the order of the classes, and behind nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jr_onnx.errors import ModelError
from jr_onnx.torchnet import load
from jr_onnx.torchnet.loading import same_logits
from jr_onnx.torchnet.parity import check_parity
from tests.torchnet.models import dense_weights, parse

CLASSES = 4


def ending(*lines: str, opset: int = 17, classes: int = CLASSES, **constants: object) -> onnx.ModelProto:
    """A network with the logits z, then lines that lead to the output y; constants are given by name."""
    arrays = {name: np.asarray(value, dtype=np.float32) for name, value in constants.items()}
    body = "\n".join(lines)
    return parse(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net (float[N, 6] x) => (float[N, {classes}] y) {{
            h = Gemm (x, w1, b1)
            a = Relu (h)
            z = Gemm (a, w2, b2)
            {body}
        }}""",
        {**dense_weights(6, 12, classes), **arrays},
    )


LOOKED_THROUGH = {
    "softmax": ("y = Softmax <axis = 1> (z)",),
    "log softmax, last axis": ("y = LogSoftmax (z)",),
    "per cent": ("p = Softmax (z)", "y = Mul (p, hundred)"),
    "scale in front": ("q = Mul (hundred, z)", "y = Softmax (q)"),
    "temperature": ("q = Div (z, t)", "y = Softmax (q)"),
    "one scale written per class": ("y = Mul (z, same)",),
    "an offset for all": ("y = Add (z, minus)",),
    "sigmoid": ("y = Sigmoid (z)",),
    "chain of functions": ("s = Softplus (z)", "q = Sqrt (s)", "y = Tanh (q)"),
    "softmax by hand": (
        "top = ReduceMax <axes = [1], keepdims = 1> (z)",
        "d = Sub (z, top)",
        "e = Exp (d)",
        "total = ReduceSum <keepdims = 1> (e, one_axis)",
        "y = Div (e, total)",
    ),
    "unit length": ("length = ReduceL2 <axes = [1], keepdims = 1> (z)", "y = Div (z, length)"),
    "other shapes": ("q = Unsqueeze (z, two)", "r = Softmax <axis = 1> (q)", "y = Squeeze (r, two)"),
    "identity": ("p = Softmax (z)", "y = Identity (p)"),
    "cube": ("y = Pow (z, three)",),
}
CONSTANTS = {
    "hundred": 100.0, "t": 2.5, "same": [3.0] * CLASSES, "minus": -7.0, "three": 3.0,
}  # fmt: skip


def made(lines: tuple[str, ...], **more: object) -> onnx.ModelProto:
    model = ending(*lines, **{**CONSTANTS, **more})
    for name, axis in (("one_axis", 1), ("two", 2)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([axis], dtype=np.int64), name))
    return model


def scores(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["y"], {"x": x})[0]
    return found


X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


@pytest.mark.parametrize("name", LOOKED_THROUGH)
def test_an_end_that_keeps_the_order_is_looked_through(name: str) -> None:
    model = made(LOOKED_THROUGH[name])
    net = load(model)
    assert net.logits_name == "z"
    assert (net(torch.from_numpy(X)).argmax(1).numpy() == scores(model, X).argmax(1)).all()
    assert check_parity(net, model, X).passed
    whole = load(model, logits_from="output")
    np.testing.assert_allclose(whole(torch.from_numpy(X)).detach(), scores(model, X), rtol=1e-4, atol=1e-5)


KEPT = {
    "a bias per class": ("y = Add (z, spread)",),
    "a scale per class": ("y = Mul (z, scales)",),
    "a negative scale": ("y = Mul (z, minus)",),
    "zero": ("y = Mul (z, nothing)",),
    "the other way round": ("y = Sub (minus, z)",),
    "a quotient of it": ("s = Softplus (z)", "y = Div (hundred, s)"),
    "clipped": ("y = Clip (z, minus, low)",),
    "rounded": ("q = Mul (z, hundred)", "r = Round (q)", "y = Mul (r, low)"),
    "to a narrower type": ("q = Cast <to = 10> (z)", "y = Cast <to = 1> (q)"),
    "relu": ("y = Relu (z)",),
    "square": ("y = Pow (z, two_f)",),
    "softmax over samples": ("y = Softmax <axis = 0> (z)",),
    "a computed scale of any sign": ("m = ReduceMean <axes = [1], keepdims = 1> (z)", "y = Mul (z, m)"),
    "divided by a sum of any sign": ("m = ReduceSum <keepdims = 1> (z, one_axis)", "y = Div (z, m)"),
    "added to itself": ("q = Sigmoid (a4)", "y = Add (z, q)"),
    "absolute": ("y = Abs (z)",),
    "not a number": ("y = Mul (z, unknown)",),
}
PER_CLASS = {
    "spread": [0.0, 5.0, -3.0, 1.0], "scales": [1.0, 2.0, 3.0, 4.0], "nothing": 0.0, "low": 0.01, "two_f": 2.0,
    "unknown": np.nan,
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_an_end_that_may_change_the_order_is_not(name: str) -> None:
    lines = KEPT[name]
    if "a4" in lines[0]:
        lines = ("a4 = Gemm (a, w2, b2)", *lines)
    net = load(made(lines, **PER_CLASS))
    assert net.logits_name != "z"


def test_the_search_ends_where_the_order_may_change_not_before() -> None:
    net = load(made(("q = Add (z, spread)", "t2 = Mul (q, hundred)", "y = Softmax (t2)"), **PER_CLASS))
    assert (net.logits_name, net.tail) == ("q", ("Mul", "Softmax"))
    assert any("before the final Mul and softmax of 'y'" in note for note in net.notes)


def test_an_end_inside_a_function_is_looked_through() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[N, 6] x) => (float[N, 4] y) { y = own.head (x, w1, b1) }
        <domain: "own", opset_import: ["" : 17]>
        head (u, w, b) => (v) { s = Gemm (u, w, b)
            v = Softmax <axis = 1> (s) }""",
        dense_weights(6, 4),
    )
    net = load(model)
    assert (net.logits_name, net.tail) == ("", ("Softmax",))
    assert check_parity(net, model, X).passed


def test_outputs_of_the_same_logits_are_known() -> None:
    model = made(("y = Softmax (z)", "bent = Add (z, spread)"), **PER_CLASS)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("z", "bent"))
    groups = same_logits(model, ["y", "z", "bent"])
    assert groups["y"] == groups["z"] != groups["bent"]


@pytest.mark.parametrize(
    ("lines", "logits", "threshold"),
    [
        (("y = Sigmoid (z)",), "z", 0.5),
        (("p = Sigmoid (z)", "y = Mul (p, hundred)"), "z", 50.0),
        (("p = Sigmoid (z)", "q = Mul (p, hundred)", "y = Add (q, minus)"), "z", 43.0),
        (("q = Mul (z, hundred)", "y = Tanh (q)"), "y", None),
        (("y = Identity (z)",), "y", None),
        (("p = Sigmoid (z)", "y = Sub (one, p)"), "y", None),
    ],
)
def test_one_score_is_two_classes(lines: tuple[str, ...], logits: str, threshold: float | None) -> None:
    constants = {"hundred": 100.0, "minus": -7.0, "one": 1.0}
    model = ending(*lines, classes=1, **constants)
    net = load(model)
    assert (net.single, net.num_classes, net.logits_name) == (True, 2, logits)
    assert net.threshold == (pytest.approx(threshold) if threshold is not None else None)
    x = torch.from_numpy(X)
    found = net(x)
    assert found.shape == (40, 2)
    assert check_parity(net, model, X).passed
    if threshold is not None:
        assert (found.argmax(1).numpy() == (scores(model, X)[:, 0] > threshold)).all()
    net.set_offset(0.25)
    moved = net.clone()(x)
    torch.testing.assert_close(moved, found - torch.tensor([0.0, 0.25]))


def test_a_softmax_over_one_class_is_refused() -> None:
    with pytest.raises(ModelError, match="a Softmax over one class, whose answer is always the same"):
        load(ending("y = Softmax (z)", classes=1))
