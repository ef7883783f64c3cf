"""Jumps that a model has itself: they are found in every spelling, fused exactly, and come back bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from jr_onnx import provenance
from jr_onnx.errors import KappaError, NoSiteError, RefusalError
from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile.messages import same_message
from jr_onnx.rewriter import find_sites, fuse, restore, rewrite
from jr_onnx.semantics import jump_relu
from jr_onnx.verifier import InputOptions, verify

T = 0.375
BEFORE = float(np.nextafter(np.float32(T), np.float32(0)))
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Spelling:
    """A way to write a jump between h = Add(x, b) and y = Mul(r, two).

    Attributes:
        body: ONNX text.
        form: How the jump is named.
        left: The operators that are left between h and y beside the jump.
        kappa: What it is fused with.
        dtype: The element type of h.
        is_exact: Whether it is J for NaN and infinities, too.
    """

    body: str
    form: str
    left: tuple[str, ...] = ()
    kappa: float = T
    dtype: str = "float"
    is_exact: bool = False


SPELLINGS = {
    "a product": Spelling("c = Greater(h, t) m = Cast<to = 1>(c) r = Mul(h, m)", "jump_mask"),
    "the mask first": Spelling("c = Less(t, h) m = CastLike(c, h) r = Mul(m, h)", "jump_mask"),
    "a mask of numbers": Spelling("c = LessOrEqual(h, t) m = Where(c, zero, one) r = Mul(h, m)", "jump_mask"),
    "from the threshold on": Spelling(
        "c = GreaterOrEqual(h, t) m = Cast<to = 1>(c) r = Mul(h, m)", "jump_mask", kappa=BEFORE
    ),
    "a ReLU times a mask": Spelling(
        "a = Relu(h) c = Greater(h, t) m = Cast<to = 1>(c) r = Mul(a, m)", "jump_relu_mask"
    ),
    "a mask times a ReLU": Spelling(
        "c = Greater(h, t) a = Max(h, zero) m = Cast<to = 1>(c) r = Mul(m, a)", "jump_relu_mask"
    ),
    "a mask of the ReLU": Spelling(
        "a = Relu(h) c = Greater(a, t) m = Cast<to = 1>(c) r = Mul(a, m)", "jump_mask", ("Relu",)
    ),
    "a ReLU behind a negative threshold": Spelling(
        "n = Neg(t) a = Clip(h, zero) c = Greater(h, n) m = Cast<to = 1>(c) r = Mul(a, m)", "jump_relu_mask", kappa=0.0
    ),
    "Where": Spelling("c = Greater(h, t) r = Where(c, h, zero)", "jump_where", is_exact=True),
    "Where not": Spelling("c = Greater(h, t) n = Not(c) r = Where(n, zero, h)", "jump_where", is_exact=True),
    "Where of the other side": Spelling("c = LessOrEqual(h, t) r = Where(c, zero, h)", "jump_where"),
    "Where below": Spelling("c = Less(h, t) r = Where(c, zero, h)", "jump_where", kappa=BEFORE),
    "Where of a ReLU": Spelling("a = Relu(h) c = Greater(h, t) r = Where(c, a, zero)", "jump_relu_where"),
    "zeros of a shape": Spelling(
        "s = Shape(h) z = ConstantOfShape(s) c = Greater(h, t) r = Where(c, h, z)", "jump_where", is_exact=True
    ),
    "compared as float": Spelling(
        "w = Cast<to = 1>(h) c = Greater(w, t) m = Cast<to = 10>(c) r = Mul(h, m)", "jump_mask", dtype="float16"
    ),
    "a shared ReLU": Spelling(
        "a = Relu(h) c = Greater(h, t) m = Cast<to = 1>(c) q = Mul(a, m) r = Add(q, a)",
        "jump_relu_mask", ("Relu", "Add"),
    ),
}  # fmt: skip
by_spelling = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())


def model_of(body: str, dtype: str = "float", constants: dict[str, Array] | None = None) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
g ({dtype}[N,4] x) => ({dtype}[N,4] y) {{ h = Add(x, b) {body} y = Mul(r, two) }}"""
    model = parser.parse_model(text)
    kind = np.dtype({"float": "float32"}.get(dtype, dtype))
    values: dict[str, Array] = {
        "b": np.zeros(4, kind), "two": np.asarray(2, kind), "zero": np.asarray(0, kind), "one": np.asarray(1, kind),
        "t": np.asarray(T, np.float32), **(constants or {}),
    }  # fmt: skip
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name in read
    )
    return model


def inputs(dtype: str) -> Array:
    kind = np.dtype({"float": "float32"}.get(dtype, dtype))
    around = [np.asarray(T, kind)]
    for limit in (0, 1):
        around.append(np.nextafter(around[0], np.asarray(limit, kind)))
    generator = np.random.default_rng(5)
    values = np.concatenate([around, [-x for x in around], [0.0, -0.0, 7.0, -7.0], generator.standard_normal(30)])
    return values.astype(kind).reshape(-1, 4)


def run(model: onnx.ModelProto, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


@by_spelling
def test_it_is_found_with_its_threshold_and_is_no_relu(spelling: Spelling) -> None:
    table = find_sites(model_of(spelling.body, spelling.dtype))
    (jump,) = table.jumps
    assert (jump.form, jump.low, jump.high, jump.thresholds, jump.axis, jump.problem) == (
        spelling.form, spelling.kappa, spelling.kappa, 1, None, "",
    )  # fmt: skip
    assert [site.form for site in table.sites] == ["relu"] * spelling.left.count("Relu")
    assert [item.kind for item in table.refusals] == ["jump"] * ("_relu_" in spelling.form and not spelling.left)


@by_spelling
def test_the_fused_model_computes_the_same_and_gives_the_original_back(spelling: Spelling) -> None:
    model = model_of(spelling.body, spelling.dtype)
    fused, result = fuse(model)
    assert [node.op_type for node in fused.graph.node] == [
        "Add",
        *spelling.left[:1],
        "JumpRelu",
        *spelling.left[1:],
        "Mul",
    ]
    assert [site.kappa for site in result.sites] == [spelling.kappa]
    x = inputs(spelling.dtype)
    np.testing.assert_array_equal(run(fused, x), run(model, x))
    if not spelling.left:
        np.testing.assert_array_equal(run(fused, x), 2 * jump_relu(x, spelling.kappa))
    assert same_message(restore(fused), model)


@by_spelling
def test_nan_and_infinities_differ_only_where_the_page_says(spelling: Spelling) -> None:
    """docs/fuse.md: products and Where(z <= t, 0, z) keep NaN, and z * mask makes NaN of -inf."""
    x = np.asarray([[np.nan, np.inf, -np.inf, 0.0]], inputs(spelling.dtype).dtype)
    model = model_of(spelling.body, spelling.dtype)
    before, after = run(model, x), run(fuse(model)[0], x)
    assert before[0, 1] == after[0, 1] == np.inf
    if spelling.is_exact:
        np.testing.assert_array_equal(before, after)
    if spelling.left:
        return  # the ReLU that is left has a NaN of its own
    assert after[0, 0] == after[0, 2] == 0
    if spelling.form != "jump_mask":
        assert before[0, 2] == 0


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("c = Greater(h, t) m = Cast<to = 1>(c) r = Mul(h, m)", {"t": np.float32(-0.5)}, "are below 0 (down to -0.5)"),
        ("c = Greater(h, t) r = Where(c, h, zero)", {"t": np.float32(np.nan)}, "1 of 1 of its thresholds 't' are NaN"),
        ("c = Greater(h, t) r = Where(c, h, zero)", {"t": np.float32(np.inf)}, "are infinite"),
        ("e = Exp(t) c = Greater(h, e) r = Where(c, h, zero)", {}, "Exp computes them when the model runs"),
        (
            "c = Greater(h, v) r = Where(c, h, zero)",
            {"v": np.arange(1, 13, dtype=np.float32).reshape(3, 4)},
            "differ along several axes",
        ),
        (
            "c = Greater(h, v) r = Where(c, h, zero)",
            {"v": np.arange(1, 4, dtype=np.float32).reshape(3, 1)},
            "may enlarge 'h'",
        ),
        (
            "w = Cast<to = 10>(h) c = Greater(w, s) r = Where(c, h, zero)",
            {"s": np.float16(0.5)},
            "compared as float16, to which a Cast may round",
        ),
    ],
)  # fmt: skip
def test_what_is_no_jump_of_kappa_is_refused_with_the_reason(
    body: str, constants: dict[str, Array], reason: str
) -> None:
    with pytest.raises(RefusalError) as caught:
        fuse(model_of(body, constants={name: np.asarray(value) for name, value in constants.items()}))
    assert reason in caught.value.message
    assert "\n" not in str(caught.value)


def test_thresholds_that_are_an_empty_tensor_are_refused() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
g (float[N,0] x) => (float[N,0] y) <float[0] t> { c = Greater(x, t) m = Cast<to = 1>(c) y = Mul(x, m) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "t"))
    with pytest.raises(RefusalError, match="its thresholds 't' are an empty tensor"):
        fuse(model)


def test_a_threshold_in_a_wider_type_becomes_the_largest_kappa_below_it() -> None:
    """0.1 lies between two float16 numbers; z > 0.1 and z > the lower one select the same."""
    body = "w = Cast<to = 1>(h) c = Greater(w, t) m = Cast<to = 10>(c) r = Mul(h, m)"
    model = model_of(body, "float16", {"t": np.asarray(0.1, np.float32)})
    fused, result = fuse(model)
    (site,) = result.sites
    assert site.kappa < 0.1 < float(np.nextafter(np.float16(site.kappa), np.float16(1)))
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16).reshape(-1, 4)
    finite = every[np.isfinite(every).all(axis=1)]
    np.testing.assert_array_equal(run(fused, finite), run(model, finite))


def test_without_a_jump_it_says_so() -> None:
    with pytest.raises(NoSiteError, match="no jump found"):
        fuse(model_of("r = Relu(h)"))
    with pytest.raises(NoSiteError, match="a jump of its own, which jr-onnx fuse takes"):
        rewrite(model_of(SPELLINGS["Where"].body), 0.1)


def test_rewrite_leaves_jumps_and_their_relus_alone() -> None:
    model = model_of("c = Greater(h, t) j = Where(c, h, zero) r = Relu(j)")
    rewritten, result = rewrite(model, 0.5)
    assert [site.form for site in result.sites] == ["relu"]
    assert [node.op_type for node in rewritten.graph.node] == ["Add", "Greater", "Where", "ThresholdedRelu", "Mul"]
    with pytest.raises(KappaError, match="matches none of the 1 sites"):
        rewrite(model, {"j": 0.5})
    inside = SPELLINGS["a ReLU times a mask"].body
    with pytest.raises(NoSiteError, match="it is the ReLU inside the jump"):
        rewrite(model_of(inside), 0.5)
    _, asked = rewrite(model_of(inside), 0.5, include=["a"])
    assert [site.id for site in asked.sites] == ["a"]


def test_a_fused_model_is_not_fused_again_and_its_plan_has_no_other_kappa() -> None:
    fused, _ = fuse(model_of(SPELLINGS["Where"].body))
    with pytest.raises(RefusalError, match="is a retrofit already"):
        fuse(fused)
    with pytest.raises(KappaError, match="exclude another kappa"):
        KappaPlan(kappa=0.1, own=True)


def test_restore_refuses_a_fused_model_whose_kappa_was_changed() -> None:
    fused, _ = fuse(model_of(SPELLINGS["a product"].body))
    record = provenance.read(fused)
    assert record is not None
    assert record.plan.own
    (node,) = [node for node in fused.graph.node if node.op_type == "JumpRelu"]
    node.attribute[0].f = 0.5
    with pytest.raises(RefusalError, match="does not compute what its provenance says"):
        restore(fused)


@pytest.mark.parametrize("lowering", ["where", "thresholded"])
def test_other_lowerings(lowering: Any) -> None:
    model = model_of(SPELLINGS["a ReLU times a mask"].body)
    fused, _ = fuse(model, lowering=lowering)
    assert not any(node.domain for node in fused.graph.node)
    np.testing.assert_array_equal(run(fused, inputs("float")), run(model, inputs("float")))
    assert same_message(restore(fused), model)


def test_a_jump_in_a_branch_keeps_what_the_branch_reads_from_outside(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, bool k) => (float[N,4] y) {
  c = Greater(x, t)
  y = If(k) <then_branch = a () => (float[N,4] p) { m = Cast<to = 1>(c) p = Mul(x, m) },
             else_branch = e () => (float[N,4] q) { q = Where(c, x, zero) }>
}"""
    model = parser.parse_model(text)
    for name, value in (("t", T), ("zero", 0.0)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    onnx.save(model, tmp_path / "m.onnx")
    path, result = fuse(tmp_path / "m.onnx")
    assert [site.form for site in result.sites] == ["jump_mask", "jump_where"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = inputs("float")
    for taken in (True, False):
        np.testing.assert_array_equal(session.run(None, {"x": x, "k": np.asarray(taken)})[0], jump_relu(x, T))
    assert restore(path, tmp_path / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


VECTOR = np.linspace(0.0, 0.75, 4, dtype=np.float32)
PER_FEATURE = {
    "features": ("N,4", VECTOR, 1),
    "tokens and features": ("N,3,4", VECTOR, 2),
    "features with axes in front": ("N,3,4", VECTOR.reshape(1, 1, 4), 2),
    "channels": ("N,4,2,5", VECTOR.reshape(1, 4, 1, 1), 1),
    "rows": ("N,4,2", VECTOR.reshape(4, 1), 1),
}


@pytest.mark.parametrize(("shape", "vector", "axis"), PER_FEATURE.values(), ids=PER_FEATURE.keys())
def test_thresholds_that_differ_by_feature(shape: str, vector: Array, axis: int) -> None:
    """Along whichever axis they lie; the first is 0, at which J is a ReLU."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
g (float[{shape}] x) => (float[{shape}] y) {{ a = Relu(x) c = Less(t, x) m = Cast<to = 1>(c) y = Mul(a, m) }}"""
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(vector, "t"))
    (jump,) = find_sites(model).jumps
    assert (jump.thresholds, jump.axis, jump.low, jump.high) == (4, axis, 0.0, 0.75)
    fused, result = fuse(model, lowering="where")
    assert result.sites[0].kappa == tuple(VECTOR.tolist())
    dims = [int(dim) if dim.isdigit() else 3 for dim in shape.split(",")]
    around = np.concatenate([VECTOR, np.nextafter(VECTOR, np.float32(1)), np.nextafter(VECTOR, np.float32(-1))])
    x = np.random.default_rng(3).choice(np.concatenate([around, -around]), dims).astype(np.float32)
    np.testing.assert_array_equal(run(fused, x), run(model, x))
    np.testing.assert_array_equal(run(fused, x), np.where(x > vector, x, np.float32(0)))
    report = verify(fused, model, input_options=InputOptions(shapes={"x": tuple(dims)}), samples=2)
    assert report, report.failures
    assert same_message(restore(fused), model)


def test_more_thresholds_than_stay_in_a_model_that_is_edited(tmp_path: Path) -> None:
    """40,000 bytes of them are a token while the file is edited, and so are the kappas in what is written."""
    features = 10_000
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,{features}] x) => (float[N,2,{features}] y) {{ c = Greater(x, t) y = Where(c, x, zero) }}"""
    model = parser.parse_model(text)
    vector = np.linspace(0.1, 0.2, features, dtype=np.float32)
    for name, value in (("t", vector), ("zero", np.zeros((), np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, tmp_path / "m.onnx")
    (jump,) = find_sites(tmp_path / "m.onnx").jumps
    assert (jump.thresholds, jump.low, jump.high) == (features, float(vector[0]), float(vector[-1]))
    path, _ = fuse(tmp_path / "m.onnx", lowering="where")
    assert restore(path, tmp_path / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    report = verify(path, tmp_path / "m.onnx", samples=1)
    assert report, report.failures
    changed = onnx.load(path)
    (kappas,) = [node for node in changed.graph.node if node.name.endswith("jr_kappa")]
    values = numpy_helper.to_array(kappas.attribute[0].t).copy()
    values[77] = 0.3
    kappas.attribute[0].t.CopyFrom(numpy_helper.from_array(values))
    onnx.save(changed, path)
    with pytest.raises(RefusalError, match="does not compute what its provenance says"):
        restore(path, tmp_path / "again.onnx")
