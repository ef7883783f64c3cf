"""A kappa per channel: what it becomes, what it computes, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import jr_onnx
from jr_onnx import provenance
from jr_onnx.element_types import NUMBERS, numpy_dtype
from jr_onnx.errors import JrError, KappaError, RefusalError
from jr_onnx.rewriter.agreement import examine
from jr_onnx.semantics import SiteKappa, jump_relu, round_kappa
from jr_onnx.verifier.evaluators.reference import OnnxEvaluator

KAPPAS = (0.0, 0.3, 1.1)


def model(
    shape: Sequence[int | str | None] = ("N", 3, 4),
    dtype: str = "float32",
    opset: int = 17,
    *,
    cap: float | None = None,
) -> onnx.ModelProto:
    """Return z -> Relu, or Clip from 0 to the cap."""
    values = [helper.make_tensor_value_info(name, NUMBERS[dtype], shape) for name in ("z", "y")]
    if cap is None:
        nodes, tensors = [helper.make_node("Relu", ["z"], ["y"], name="site")], []
    else:
        nodes = [helper.make_node("Clip", ["z", "low", "high"], ["y"], name="site")]
        tensors = [
            numpy_helper.from_array(np.asarray(value, numpy_dtype(dtype)), name)
            for name, value in (("low", 0.0), ("high", cap))
        ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def around(kappas: Sequence[float], dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return values (N, C, ...): every channel's kappa and its neighbours among random ones."""
    rng = np.random.default_rng(5)
    kind: Any = numpy_dtype(dtype)
    z = rng.standard_normal(shape).astype(kind)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], dtype=kind)
    z.reshape(-1)[: special.size] = special
    for channel, kappa in enumerate(kappas):
        rounded = np.asarray(round_kappa(kappa, dtype)).astype(kind)
        near = np.nextafter(rounded, np.asarray([9, -9], kind))
        column = z[:, channel].copy()
        column.reshape(-1)[-3:] = (rounded, *near)
        z[:, channel] = column
    return z


@pytest.mark.parametrize("lowering", ["where", "custom"])
@pytest.mark.parametrize(("dtype", "opset"), [("float32", 17), ("float16", 17), ("float64", 13), ("float32", 9)])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 3, 4, 5), (2, 3, 2, 2, 2)])
def test_it_computes_j_with_the_kappa_of_the_channel(
    lowering: Any, dtype: str, opset: int, shape: tuple[int, ...]
) -> None:
    source = model(("N", *shape[1:]), dtype, opset)
    if lowering == "custom" and opset < 12:
        with pytest.raises(RefusalError, match="needs opset 10"):
            jr_onnx.rewrite(source, {"site": KAPPAS}, lowering=lowering)
        return
    retrofit, result = jr_onnx.rewrite(source, {"site": KAPPAS}, lowering=lowering)
    rounded = round_kappa(KAPPAS, dtype)
    assert [site.kappa for site in result.sites] == [rounded]
    z = around(KAPPAS, dtype, shape)
    (found,) = OnnxEvaluator(retrofit).run({"z": z})
    assert np.asarray(found).tobytes() == jump_relu(z, rounded).tobytes()
    assert jump_relu(z, rounded)[:, 1].tobytes() == jump_relu(z[:, 1], rounded[1]).tobytes()


@pytest.mark.parametrize("opset", [8, 13])
def test_a_cap_stays_and_old_opsets_have_a_form(opset: int) -> None:
    source = model(opset=opset) if opset < 11 else model(opset=opset, cap=2.0)
    retrofit, result = jr_onnx.rewrite(source, {"site": KAPPAS})
    assert result.sites[0].lowering == ("cast_mul" if opset == 8 else "where")
    z = np.random.default_rng(0).normal(0, 2, (4, 3, 4)).astype(np.float32)
    (found,) = OnnxEvaluator(retrofit).run({"z": z})
    assert np.array_equal(found, jump_relu(z, round_kappa(KAPPAS, "float32"), None if opset < 11 else 2.0))


@pytest.mark.parametrize("lowering", ["where", "custom"])
def test_the_original_comes_back_and_the_graph_agrees(lowering: Any) -> None:
    source = model()
    retrofit, _ = jr_onnx.rewrite(source, {"site": KAPPAS}, lowering=lowering)
    record = provenance.read(retrofit)
    assert record is not None
    assert (record.sites[0].kappa, record.sites[0].rank) == (round_kappa(KAPPAS, "float32"), 3)
    assert examine(retrofit)
    assert jr_onnx.restore(retrofit).SerializeToString() == source.SerializeToString()


@pytest.mark.parametrize("lowering", ["where", "custom"])
def test_an_edited_value_is_noticed(lowering: Any) -> None:
    retrofit, _ = jr_onnx.rewrite(model(), {"site": KAPPAS}, lowering=lowering)
    constant = next(node for node in retrofit.graph.node if node.op_type == "Constant")
    values = numpy_helper.to_array(constant.attribute[0].t).copy()
    values[1] = 0.5
    constant.attribute[0].t.CopyFrom(numpy_helper.from_array(values))
    found = examine(retrofit)
    assert not found
    assert "site site" in found.reason


@pytest.mark.parametrize("change", [{"rank": 4}, {"kappa": KAPPAS[:2]}, {"kappa": 0.25}, {"lowering": "thresholded"}])
def test_an_edited_record_is_noticed(change: dict[str, Any]) -> None:
    retrofit, _ = jr_onnx.rewrite(model(), {"site": KAPPAS})
    record = provenance.read(retrofit)
    assert record is not None
    provenance.remove(retrofit)
    provenance.write(retrofit, dataclasses.replace(record, sites=(dataclasses.replace(record.sites[0], **change),)))
    assert not examine(retrofit)


@pytest.mark.parametrize(
    ("shape", "kappa", "message"),
    [
        (("N", 3, 4), (0.1, 0.2), "site site: kappa has 2 values, .* has 3 channels, its shape is N x 3 x 4.*3 values"),
        (("N", 3, 4), (0.1,), "site site: kappa has 1 value, .* has 3 channels"),
        ((3,), (0.1, 0.2, 0.3), "site site: .* no axis of channels, its shape is 3.*Give it one number"),
        ((), (0.1,), "no axis of channels, its shape is a scalar"),
        (("N", "C"), (0.1, 0.2), "unknown number of channels, its shape is N x C.*one number"),
        (("N", None, 4), (0.1, 0.2), "unknown number of channels, its shape is N x [?] x 4"),
    ],
)
def test_values_that_do_not_fit_the_channels_are_refused(
    shape: Sequence[int | str | None], kappa: SiteKappa, message: str
) -> None:
    with pytest.raises(KappaError) as caught:
        jr_onnx.rewrite(model(shape), {"site": kappa})
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_site_without_a_shape_is_refused() -> None:
    source = model()
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(KappaError, match=r"site site: .* its tensor has an unknown shape[.] Add") as caught:
        jr_onnx.rewrite(source, {"site": KAPPAS})
    assert "onnx.shape_inference.infer_shapes, or one number for the site" in caught.value.hint


def test_the_shape_of_the_input_serves_where_that_of_the_output_is_not_known() -> None:
    source = model()
    source.graph.node.append(helper.make_node("Foreign", ["y"], ["out"], domain="foreign"))
    source.opset_import.append(helper.make_opsetid("foreign", 1))
    source.graph.output[0].name = "out"
    source.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    retrofit, _ = jr_onnx.rewrite(source, {"site": KAPPAS})
    record = provenance.read(retrofit)
    assert record is not None
    assert record.sites[0].rank == 3


def test_a_rank_that_is_not_known_any_more_is_the_recorded_one() -> None:
    """Another version of onnx may infer less than the one that rewrote the model; a rank that is known must agree."""
    retrofit, _ = jr_onnx.rewrite(model(), {"site": KAPPAS})
    for value in (*retrofit.graph.input, *retrofit.graph.output):
        value.type.tensor_type.ClearField("shape")
    assert examine(retrofit)
    back = jr_onnx.restore(retrofit)
    assert [node.op_type for node in back.graph.node] == ["Relu"]
    retrofit, _ = jr_onnx.rewrite(model(), {"site": KAPPAS})
    for value in (*retrofit.graph.input, *retrofit.graph.output):
        value.type.tensor_type.shape.dim.add().dim_value = 5
    found = examine(retrofit)
    assert not found
    assert "has rank 4, expected 3 as recorded" in found.reason


def test_a_site_in_a_function_is_refused() -> None:
    body = helper.make_function(
        "own", "act", ["z"], ["y"], [helper.make_node("Relu", ["z"], ["y"], name="site")], [helper.make_opsetid("", 17)]
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("act", ["a"], ["b"], domain="own")], "g", values[:1], values[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    source = helper.make_model(graph, opset_imports=imports, functions=[body], ir_version=8)
    with pytest.raises(KappaError, match="unknown shape because it is in a function") as caught:
        jr_onnx.rewrite(source, {"site": KAPPAS})
    assert caught.value.hint == "Give it one number"


@pytest.mark.parametrize(("lowering", "opset"), [("thresholded", 17), ("auto", 6)])
def test_lowerings_of_one_number_are_refused(lowering: Any, opset: int) -> None:
    with pytest.raises(RefusalError) as caught:
        jr_onnx.rewrite(model(opset=opset), {"site": KAPPAS}, lowering=lowering)
    assert "for each channel" in str(caught.value) or "per channel" in str(caught.value)


def test_a_warning_names_what_the_channels_do() -> None:
    _, result = jr_onnx.rewrite(model(dtype="float16", cap=1.0), {"site": (0.1, 1e-9, 3.0)})
    assert any("not below the cap" in line and "per channel: 0 to 3" in line for line in result.warnings)
    assert any("kappa rounds to 0" in line for line in result.warnings)


def test_one_channel_that_overflows_is_named() -> None:
    with pytest.raises(JrError, match=r"site site: kappa .*overflows float16"):
        jr_onnx.rewrite(model(dtype="float16"), {"site": (0.1, 1e6, 0.2)})


def chain() -> onnx.ModelProto:
    """Return z -> Relu one -> Relu two."""
    made = model()
    made.graph.node[0].output[0], made.graph.node[0].name = "between", "one"
    made.graph.node.append(helper.make_node("Relu", ["between"], ["y"], name="two"))
    return made


def test_one_function_serves_sites_with_one_kappa_and_with_many() -> None:
    retrofit, _ = jr_onnx.rewrite(chain(), {"one": KAPPAS, "two": 0.7}, lowering="custom")
    calls = [node for node in retrofit.graph.node if node.op_type == "JumpRelu"]
    assert [len(node.input) for node in calls] == [2, 2]
    assert len(retrofit.functions) == 1
    assert examine(retrofit)
    z = np.random.default_rng(0).standard_normal((4, 3, 4)).astype(np.float32)
    (found,) = OnnxEvaluator(retrofit).run({"z": z})
    assert np.array_equal(found, jump_relu(jump_relu(z, round_kappa(KAPPAS, "float32")), round_kappa(0.7, "float32")))


def test_a_verification_of_it_passes() -> None:
    report = jr_onnx.verify(chain(), kappa={"one": KAPPAS, "two": 0.7})
    assert report.passed, report.failures
    assert "per channel" in report.kappa
