"""Every way to write ReLU: found or named, rewritten to J as ONNX Runtime computes it, undone, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jr_onnx.rewriter import OwnJump, find_sites, restore, rewrite
from tests.rewriter.ways import SHIFT, WAYS, Way, jump, model_of

ort = pytest.importorskip("onnxruntime")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
SITES = [way for way in WAYS if way.form]
KAPPA = 0.5
by_name = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
by_site = pytest.mark.parametrize("way", SITES, ids=lambda way: way.name)


def values() -> np.ndarray:
    """Return operands less the shift, around 0, kappa and 6."""
    marks = np.asarray([0, -0.0, KAPPA, 6], np.float32)
    around = np.concatenate([np.nextafter(marks, np.float32(-9)), marks, np.nextafter(marks, np.float32(9))])
    return np.concatenate([around, np.asarray([-7, -0.3, 0.3, 0.7], np.float32)]).reshape(-1, 4) - SHIFT


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def expected(way: Way, x: np.ndarray, kappa: float) -> np.ndarray:
    z = x + SHIFT
    plain = jump(z, kappa)
    if way.cap is not None:
        plain = np.minimum(plain, np.float32(way.cap))
    return np.float32(2) * (way.result(z, kappa) if way.result is not None else plain)


@by_name
def test_it_is_a_site_or_named_with_the_reason(way: Way) -> None:
    table = find_sites(model_of(way))
    if way.form:
        assert [(site.form, site.cap) for site in table.sites] == [(way.form, way.cap)]
        assert not table.refusals
    else:
        assert not table.sites
        reasons = [item.problem if isinstance(item, OwnJump) else item.reason for item in getattr(table, way.listed)]
        assert any(way.reason in reason for reason in reasons), table


@by_site
def test_the_original_is_a_relu(way: Way) -> None:
    """Otherwise it would be no way to write it."""
    x = values()
    np.testing.assert_array_equal(run(model_of(way), x), expected(way, x, 0.0))


@by_site
@pytest.mark.parametrize("lowering", ["auto", "where", "custom"])
def test_the_retrofit_computes_j_and_is_undone(way: Way, lowering: Any) -> None:
    model, x = model_of(way), values()
    if lowering == "custom" and way.opset < 12:
        pytest.skip("a function body with a cap needs opset 12")
    output, _ = rewrite(model, KAPPA, lowering=lowering)
    np.testing.assert_array_equal(run(output, x), expected(way, x, KAPPA))
    assert restore(output) == model


@by_site
def test_a_retrofit_at_kappa_zero_holds_no_site_any_more(way: Way) -> None:
    output, _ = rewrite(model_of(way), 0.0)
    assert not find_sites(output).sites


@by_site
def test_verify_passes(way: Way) -> None:
    from jr_onnx.verifier import verify

    report = verify(rewrite(model_of(way), KAPPA)[0], original=model_of(way), samples=2)
    assert report, report.failures


FORMS = [next(way for way in SITES if way.form == form) for form in dict.fromkeys(way.form for way in SITES)]


@pytest.mark.parametrize("way", FORMS, ids=lambda way: way.form)
def test_the_session_and_the_torch_twin_compute_the_same(way: Way, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from jr_onnx import InferenceSession
    from jr_onnx.torchnet import load

    path, x = tmp_path / "net.onnx", values()
    onnx.save(rewrite(model_of(way), KAPPA)[0], path)
    np.testing.assert_array_equal(InferenceSession(path).run(["y"], {"x": x})[0], expected(way, x, KAPPA))
    network = load(path)
    assert [site.form for site in network.sites.values()] == [way.form]
    with torch.no_grad():
        # The twin gives logits, from before the scaling by 2.
        np.testing.assert_array_equal(2 * network(torch.from_numpy(x)).numpy(), expected(way, x, KAPPA))


@pytest.mark.parametrize("shape", [(), (4,), (32, 64, 4)])
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("number", [0.0, 0.5])
def test_a_stored_zero_is_read_wherever_it_lies(
    tmp_path: Path, shape: tuple[int, ...], external: bool, number: float
) -> None:
    size = list(shape) if len(shape) == 3 else ["N", 4]
    zeros = np.full(shape, number, np.float32)
    info = [onnx.helper.make_tensor_value_info(name, 1, size) for name in ("x", "y")]
    node = onnx.helper.make_node("Max", ["x", "zeros"], ["y"], name="max")
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [onnx.numpy_helper.from_array(zeros, "zeros")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path, output = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save_model(model, path, save_as_external_data=external, size_threshold=0, location="net.data")
    assert bool(find_sites(path).sites) == (number == 0)
    if number:
        return
    x = np.linspace(-1, 1, 32 * 64 * 4, dtype=np.float32).reshape(shape if len(shape) == 3 else (-1, 4))
    rewrite(path, KAPPA, output=output)
    session = ort.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], jump(x, KAPPA))
    from jr_onnx.verifier import verify

    assert verify(output, original=path, samples=1)
    back = onnx.load(restore(output, tmp_path / "back.onnx"), load_external_data=False)
    assert back == onnx.load(path, load_external_data=False)
    from jr_onnx import InferenceSession

    session = InferenceSession(output)
    assert not session.retrofit.mismatch
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], jump(x, KAPPA))
    if external:  # in memory, without the file's folder, it is named
        (refusal,) = find_sites(onnx.load(path, load_external_data=False)).refusals
        assert "lies in external data, which is not available" in refusal.reason


NUMBERS = {"zero": np.asarray(0, np.float32), "one": np.asarray(1, np.float32), "minus": np.asarray(-1, np.float32)}


@pytest.mark.parametrize(
    "negative",
    ["n = Neg(h)", "n = Sub(zero, h)", "n = Mul(h, minus)", "n = Mul(minus, h)"],
)
@pytest.mark.parametrize("end", ["r = Neg(m)", "r = Sub(zero, m)", "r = Mul(m, minus)"])
def test_minus_z_is_known_however_it_is_written(negative: str, end: str) -> None:
    way = Way("-Min(-z, 0)", f"{negative} m = Min(n, zero) {end}", "min", initializers=NUMBERS)
    table, x = find_sites(model_of(way)), values()
    assert [site.form for site in table.sites] == ["min"]
    np.testing.assert_array_equal(run(rewrite(model_of(way), KAPPA)[0], x), expected(way, x, KAPPA))


@pytest.mark.parametrize(
    "other", ["n = Sub(one, h)", "n = Mul(h, two)", "n = Mul(h, h)", "n = Sub(h, zero)", "n = Exp(h)"]
)
def test_what_is_not_minus_z_makes_no_relu(other: str) -> None:
    way = Way("", f"{other} m = Min(n, zero) r = Neg(m)", initializers=NUMBERS)
    assert not find_sites(model_of(way)).sites


SHAPES = {
    "row": np.asarray([1, 4]), "block": np.asarray([3, 4]), "nil": np.asarray([0, 0]), "first": np.asarray([0]),
    "sc": np.asarray(0.25, np.float32), "other": np.asarray(0.5, np.float32), "zp": np.asarray(3, np.int8),
    "scs": np.full(4, 0.25, np.float32), "zps": np.full(4, 3, np.int8),
}  # fmt: skip
RESHAPED = "s0 = Shape(h) a = Add(s0, nil) t = Reshape(h, a)"  # a shape that no inference knows
QUANTISED = "q = QuantizeLinear(h, sc, zp) h1 = DequantizeLinear(q, sc, zp) g = Greater(h1, zero)"
CALLED_TWICE = '<domain: "f", opset_import: ["" : 17]>\nclip (a, lo) => (b) { b = Clip(a, lo) }'


def table_of(body: str, functions: str = "") -> tuple[list[str], list[str]]:
    numbers = {**NUMBERS, **SHAPES, "nought": np.asarray(0, np.float32), "noughts": np.zeros(1, np.float32)}
    table = find_sites(model_of(Way("", body, initializers=numbers, functions=functions)))
    return [site.form for site in table.sites], [item.reason for item in table.refusals]


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ("s = Shape(h) i = Cast<to = 6>(s) c = Cast<to = 7>(i) z = ConstantOfShape(c) r = Max(h, z)", "max"),
        ("s = Shape(h) w = ConstantOfShape<value = int64[1] {0}>(s) z = Cast<to = 1>(w) r = Max(h, z)", "max"),
        ("z = ConstantOfShape(row) r = Max(h, z)", "max"),
        ("z = Expand(zero, row) r = Max(h, z)", "max"),
        (f"{RESHAPED} s = Shape(t) z = ConstantOfShape(s) r = Max(t, z)", "max"),
        (f"{RESHAPED} s = Shape(t) i = Cast<to = 7>(s) z = ConstantOfShape(i) r = Max(t, z)", "max"),
        (f"{RESHAPED} s = Shape(t) z = Expand(zero, s) r = Max(t, z)", "max"),
        (f"{QUANTISED} h2 = DequantizeLinear(q, sc, zp) r = Where(g, h2, zero)", "where"),
    ],
)
def test_zeros_of_any_origin_make_a_relu(body: str, form: str) -> None:
    assert table_of(body) == ([form], [])


@pytest.mark.parametrize(
    "body",
    [
        "z = ConstantOfShape(block) r = Max(h, z)",
        "z = Expand(zero, block) r = Max(h, z)",
        f"{RESHAPED} w = Expand(h, block) s = Shape(w) z = ConstantOfShape(s) r = Max(t, z)",
        f"{RESHAPED} s = Shape(t) n = Neg(s) p = Abs(n) z = ConstantOfShape(p) r = Max(t, z)",
    ],
)
def test_zeros_whose_shape_may_be_larger_are_refused(body: str) -> None:
    sites, (reason,) = table_of(body)
    assert not sites
    assert "may enlarge" in reason


@pytest.mark.parametrize(
    "other",
    [
        "h2 = DequantizeLinear(q, other, zp)",
        "h2 = DequantizeLinear(q, sc)",
        "p = Neg(h) q2 = QuantizeLinear(p, sc, zp) h2 = DequantizeLinear(q2, sc, zp)",
    ],
)
def test_a_value_dequantised_otherwise_is_another_one(other: str) -> None:
    assert table_of(f"{QUANTISED} {other} r = Where(g, h2, zero)") == ([], [])


def test_calls_that_give_the_same_constant_agree() -> None:
    assert table_of("q = f.clip(h, zero) r = f.clip(q, nought)", CALLED_TWICE) == (["clip"], [])
    sites, (reason,) = table_of("q = f.clip(h, zero) r = f.clip(q, minus)", CALLED_TWICE)
    assert not sites
    assert "not the same constant in every call" in reason
