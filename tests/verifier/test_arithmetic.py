"""Lowerings agree value for value where ONNX Runtime computes them alike, and within rounding where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx.kappa import KappaPlan
from jr_onnx.modelfile import from_proto
from jr_onnx.rewriter import rewrite
from jr_onnx.runtime import status
from jr_onnx.verifier import VerifyReport, verify
from jr_onnx.verifier.evaluators.ort import Runnable
from jr_onnx.verifier.variants import variants
from jr_onnx.verifier.whole_model.arithmetic import Arithmetic, optimised_arithmetic
from tests.verifier.nets import image_network, network, save

KAPPA = 0.06
WIDTH, CLASSES = 1024, 7


def scalar_site(cap: float | None = None) -> onnx.ModelProto:
    """x () -> ReLU -> r, r * row -> (1, 1024) -> MatMul -> Add -> ReLU -> y (1, 7).

    Behind a scalar the operator's own shape inference is silent, so ONNX Runtime fuses MatMul and Add for every
    lowering but the one with the op library.
    """
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "row": generator.standard_normal((1, WIDTH)).astype(np.float32),
        "weight": generator.standard_normal((WIDTH, CLASSES)).astype(np.float32),
        "bias": generator.standard_normal(CLASSES).astype(np.float32),
    }
    last = helper.make_node("Relu", ["a"], ["y"], name="last")
    if cap is not None:
        arrays |= {"low": np.float32(0), "high": np.float32(cap)}
        last = helper.make_node("Clip", ["a", "low", "high"], ["y"], name="last")
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("Mul", ["r", "row"], ["v"], name="spread"),
        helper.make_node("MatMul", ["v", "weight"], ["m"], name="product"),
        helper.make_node("Add", ["m", "bias"], ["a"], name="sum"),
        last,
    ]
    graph = helper.make_graph(
        nodes,
        "scalar",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


INPUTS = [{"x": np.asarray(value, np.float32)} for value in (0.7, 1.3, 2.9)]


@pytest.fixture
def library() -> None:
    found = status("cpu")
    if not found.loadable:
        pytest.skip(f"the op library is not built: {found.reason}")


def of_all_lowerings(model: onnx.ModelProto, sites: tuple[str, ...]) -> dict[str, Arithmetic]:
    found, _ = variants(from_proto(model), KappaPlan(by_site=tuple((site, KAPPA) for site in sites)))
    members = {item.name: item for item in found}
    if status("cpu").loadable:
        members |= {f"{item.name} + library": item.with_library() for item in found if item.uses_custom}
    return {name: optimised_arithmetic(item.runnable) for name, item in members.items()}


@pytest.mark.parametrize("form", ["relu", "clip", "max", "fused_gemm"])
def test_all_lowerings_of_a_network_are_the_same_arithmetic(form: str) -> None:
    found = of_all_lowerings(network(form), ("act0", "act1"))
    assert len(found) >= 3
    assert len({item.outputs for item in found.values()}) == 1, {name: item.operators for name, item in found.items()}


def test_all_lowerings_of_convolutions_in_the_blocked_layout_are_the_same_arithmetic() -> None:
    found = of_all_lowerings(image_network(), ("act0", "act1"))
    assert len({item.outputs for item in found.values()}) == 1


@pytest.mark.parametrize("opset", [7, 13])
def test_cast_and_mul_and_a_branch_are_seen_through(opset: int) -> None:
    model = network(
        "clip" if opset == 7 else "relu", opset=opset, ir_version=4, scope="main" if opset == 7 else "branch"
    )
    sites = tuple(site.id for site in _sites(model))
    found = of_all_lowerings(model, sites)
    assert len({item.outputs for item in found.values()}) == 1
    plain = optimised_arithmetic(Runnable("original", from_proto(model)))
    assert plain.outputs != next(iter(found.values())).outputs, "a ReLU is no J"


def _sites(model: onnx.ModelProto) -> Any:
    from jr_onnx.rewriter.sites import locate

    return [item.site for item in locate(model).located]


@pytest.mark.parametrize("change", ["weight", "attribute", "order"])
def test_another_weight_attribute_or_order_is_another_arithmetic(change: str) -> None:
    models = [image_network(), image_network()]
    if change == "weight":
        tensor = models[1].graph.initializer[1]
        tensor.CopyFrom(
            numpy_helper.from_array(np.nextafter(numpy_helper.to_array(tensor), np.float32(9)), tensor.name)
        )
    elif change == "attribute":
        kept = [item for item in models[1].graph.node[0].attribute if item.name != "pads"]
        del models[1].graph.node[0].attribute[:]
        models[1].graph.node[0].attribute.extend([*kept, helper.make_attribute("pads", [0, 0, 2, 2])])
    else:
        for model, operands in zip(models, (["flat", "last"], ["flat2", "last"]), strict=True):
            model.graph.node[-1].input[:] = operands
            model.graph.node.insert(5, helper.make_node("Abs", ["flat"], ["flat2"]))
    one, other = (optimised_arithmetic(Runnable("it", from_proto(model))) for model in models)
    assert one.outputs != other.outputs
    assert one.difference(one) == ""
    assert one.difference(other)


def optimised_checks(report: VerifyReport) -> dict[str, tuple[str, float | None, str]]:
    return {
        check.compared: (check.verdict, check.bound, check.detail)
        for check in report.checks
        if check.what == "kappa, optimised"
    }


@pytest.mark.usefixtures("library")
def test_lowerings_that_are_optimised_differently_may_differ_by_rounding_and_it_is_said() -> None:
    report = verify(scalar_site(), KAPPA, inputs=INPUTS)
    assert report, report.failures
    found = optimised_checks(report)
    verdict, bound, detail = found["custom + op library with auto"]
    assert verdict == "passed"
    assert bound is not None
    assert bound < 1e-3
    assert "optimises them differently: 1 Add, 1 MatMul here, 1 Gemm there" in detail
    assert found["where with auto"][1] is None, "the others are computed alike, so only equality passes"


def kappa(model: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    node = next(item for item in model.graph.node if item.name == name)
    return next(item for item in node.attribute if item.name in ("alpha", "kappa"))


def wrong_kappa(model: onnx.ModelProto) -> None:
    kappa(model, "first").f = 0.8


def next_float(model: onnx.ModelProto) -> None:
    kappa(model, "last").f = float(np.nextafter(np.float32(KAPPA), np.float32(1)))


def skipped(model: onnx.ModelProto) -> None:
    node = next(item for item in model.graph.node if item.name == "last")
    node.op_type, node.domain = "Relu", ""
    del node.attribute[:]


def cap_lost(model: onnx.ModelProto) -> None:
    clip = next(item for item in model.graph.node if item.name == "last")
    assert clip.op_type in ("Clip", "Min")
    clip.op_type = "Identity"
    del clip.input[1:]


def at_least(model: onnx.ModelProto) -> None:
    next(item for item in model.graph.node if item.op_type == "Greater").op_type = "GreaterOrEqual"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("lowering", "cap", "plant"),
    [
        ("thresholded", None, wrong_kappa),
        ("custom", None, wrong_kappa),
        ("thresholded", None, next_float),
        ("custom", None, next_float),
        ("thresholded", None, skipped),
        ("where", None, at_least),
        ("thresholded", 6.0, cap_lost),
    ],
)
def test_a_wrong_jump_still_fails_there(
    tmp_path: Path, lowering: Any, cap: float | None, plant: Callable[[onnx.ModelProto], None]
) -> None:
    source = save(scalar_site(cap), tmp_path)
    path, _ = rewrite(source, KAPPA, lowering=lowering)
    assert verify(path, original=source, inputs=INPUTS)
    model = onnx.load(path)
    plant(model)
    onnx.save(model, path)
    report = verify(path, original=source, inputs=INPUTS)
    assert report.conclusion == "failed"
    assert {failure.check for failure in report.failures} & {"sites of the file"}
