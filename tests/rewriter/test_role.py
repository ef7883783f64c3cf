"""Gates and clamps are left alone, named, and rewritten where they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from jr_onnx.errors import NoSiteError
from jr_onnx.kappa import KappaPlan
from jr_onnx.rewriter import find_sites, restore, rewrite
from jr_onnx.verifier import verify

ort = pytest.importorskip("onnxruntime")
X = np.linspace(-4, 4, 24, dtype=np.float32).reshape(-1, 4)

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y)
<float zero = {0}, float one = {1}, float three = {3}, float six = {6}> {
  [pixels] p = Clip(x, zero, one)
  [first] a = Relu(p)
  t = Add(a, three)
  [gate] c = Clip(t, zero, six)
  s = Mul(a, c)
  h = Div(s, six)
  [second] r = Clip(h, zero, six)
  y = Neg(r)
}"""


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def expected(kappas: dict[str, float]) -> np.ndarray:
    def jump(z: np.ndarray, name: str, cap: float | None = None) -> np.ndarray:
        found = np.where(z > np.float32(kappas.get(name, 0.0)), z, np.float32(0))
        return found if cap is None else np.minimum(found, np.float32(cap))

    a = jump(jump(X, "pixels", 1), "first")
    gate = jump(a + np.float32(3), "gate", 6)
    return -jump(a * gate / np.float32(6), "second", 6)


def test_they_are_named_with_their_roles() -> None:
    table = find_sites(parser.parse_model(NETWORK))
    assert [site.id for site in table.sites] == ["first", "second"]
    assert [(item.id, item.kind) for item in table.refusals] == [("pixels", "clamp"), ("gate", "gate")]


def test_by_default_they_are_left_alone() -> None:
    model = parser.parse_model(NETWORK)
    output, result = rewrite(model, 0.2)
    assert [site.id for site in result.sites] == ["first", "second"]
    np.testing.assert_allclose(run(output), expected({"first": 0.2, "second": 0.2}), rtol=1e-6)
    assert restore(output) == model


@pytest.mark.parametrize(
    ("options", "kappa", "chosen"),
    [
        ({"include": ("gate",)}, 3.5, ["gate"]),
        ({"include": (".",)}, 0.2, ["pixels", "first", "gate", "second"]),
        ({"include": (".",), "exclude": ("pixels",)}, 0.2, ["first", "gate", "second"]),
        ({}, KappaPlan(by_site=(("gate", 3.5), ("first", 0.2))), ["first", "gate"]),
        ({}, KappaPlan(0.2, by_site=(("gat.*", 3.5),)), ["first", "second"]),
    ],
)
def test_they_are_rewritten_where_they_are_asked_for(
    options: dict[str, tuple[str, ...]], kappa: float | KappaPlan, chosen: list[str]
) -> None:
    model = parser.parse_model(NETWORK)
    output, result = rewrite(model, kappa, **options)
    assert [site.id for site in result.sites] == chosen
    assert not {item.id for item in result.refusals} & set(chosen)
    np.testing.assert_allclose(run(output), expected({site.id: site.kappa for site in result.sites}), rtol=1e-6)
    assert restore(output) == model
    report = verify(output, original=model, samples=2)
    assert report, report.failures


def test_a_model_of_nothing_else_says_so() -> None:
    model = parser.parse_model(NETWORK.replace("Relu(p)", "Neg(p)").replace("Clip(h, zero, six)", "Neg(h)"))
    with pytest.raises(NoSiteError, match=r"no activation found: pixels: .* it is a clamp.*--include takes it .*and 1"):
        rewrite(model, 0.2)


def test_the_torch_twin_has_no_jump_in_a_gate_unless_the_file_has(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from jr_onnx.torchnet import load

    for include, sites in (((), ["first", "second"]), (("gate", "first"), ["first", "gate", "second"])):
        path = tmp_path / f"{len(include)}.onnx"
        output, result = rewrite(parser.parse_model(NETWORK), 0.2, include=include)
        onnx.save(output, path)
        network = load(path)
        assert list(network.sites) == sites
        with torch.no_grad():
            found = network(torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(found, expected({site.id: site.kappa for site in result.sites}), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a] r = Clip(h, zero, six) y = Mul(r, x)", "relu6 times something else is an activation"),
        ("[a] r = Clip(h, zero, six) y = Div(r, three)", "relu6 scaled by another number"),
        ("[a] r = Clip(h, zero, one) y = Neg(r)", "a ReLU1 between layers"),
        ("[a] r = Clip(h, zero) y = Mul(r, h)", "a squared ReLU has no upper bound"),
        ("[a] y = Relu(h)", "a ReLU on the output"),
        ("[a] q = Clip(x, zero, six) y = Neg(q)", "a ReLU6 on the input"),
        ("[a] q = Relu(x) y = Neg(q)", "a ReLU on the input"),
    ],
)
def test_an_activation_stays_one(text: str, found: str) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,4] x) => (float[N,4] y)\n'
        f"<float zero = {{0}}, float one = {{1}}, float three = {{3}}, float six = {{6}}> {{ h = Sin(x) {text} }}"
    )
    assert [site.id for site in find_sites(model).sites] == ["a"], found
