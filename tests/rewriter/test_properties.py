"""Properties of every rewrite, on random models: nothing else moves, kappa 0 is ReLU, restore inverts, bytes repeat.

What "nothing else" means is checked here without the package's own comparison.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from jr_onnx import provenance
from jr_onnx.errors import NoSiteError, RefusalError
from jr_onnx.rewriter import RewriteResult, find_sites, restore, rewrite
from jr_onnx.semantics import OP_DOMAIN, jump_relu, round_kappa
from tests.rewriter.strategies import dtype_of, inputs_for, models

_HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=_HEALTH, max_examples=40)
settings.register_profile("deep", deadline=None, suppress_health_check=_HEALTH, max_examples=1000)
PROFILE = settings.get_profile(os.environ.get("JR_HYPOTHESIS", "ci"))

ALL_DTYPES = ("float32", "float16", "bfloat16", "float64")
WISHES = st.sampled_from(["auto", "where", "thresholded", "custom"])
TARGETS = st.sampled_from(["portable", "cpu", "cuda"])


def rewritten(model: onnx.ModelProto, kappa: Any, **options: Any) -> tuple[onnx.ModelProto, RewriteResult]:
    """Rewrite, or reject an example in which there is nothing to rewrite or the wish is impossible."""
    try:
        return rewrite(model, kappa, **options)
    except (NoSiteError, RefusalError):
        assume(False)
        raise


def every_graph(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += every_graph(attribute.g)
    return found


def bodies(model: onnx.ModelProto) -> list[Any]:
    """Return every list of nodes that belongs to the source: graphs and functions, and the graphs in functions."""
    found: list[Any] = [graph.node for graph in every_graph(model.graph)]
    for function in model.functions:
        if function.domain == OP_DOMAIN:
            continue
        found.append(function.node)
        for node in function.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    found += [graph.node for graph in every_graph(attribute.g)]
    return found


def without_graphs(node: onnx.NodeProto) -> bytes:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            attribute.g.Clear()
    return copy.SerializeToString(deterministic=True)


def shell(model: onnx.ModelProto) -> bytes:
    """Return everything of a model but its nodes, its provenance, and what a custom lowering needs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    provenance.remove(copy)
    for graph in every_graph(copy.graph):
        del graph.node[:]
    kept = [function for function in copy.functions if function.domain != OP_DOMAIN]
    del copy.functions[:]
    copy.functions.extend(kept)
    for holder in (copy, *copy.functions):
        imports = [item for item in holder.opset_import if item.domain != OP_DOMAIN]
        del holder.opset_import[:]
        holder.opset_import.extend(imports)
    for function in copy.functions:
        del function.node[:]
    copy.ir_version = 0
    return copy.SerializeToString(deterministic=True)


@settings(PROFILE)
@given(models(ALL_DTYPES), WISHES, TARGETS, st.booleans())
def test_nothing_else_moves(model: onnx.ModelProto, wish: str, target: str, some: bool) -> None:
    sites = find_sites(model).sites
    assume(sites)
    chosen = sites[::2] if some else sites
    kappas = {site.id: 0.25 for site in chosen}
    before = model.SerializeToString(deterministic=True)
    output, result = rewritten(model, kappas, lowering=wish, target=target)
    assert model.SerializeToString(deterministic=True) == before
    assert {row.id for row in result.sites} >= {site.id for site in chosen}
    assert shell(output) == shell(model)
    places = {(record.scope, record.output) for record in _record(output).sites}
    outputs = {name for _, name in places}
    for old, new in zip(bodies(model), bodies(output), strict=True):
        moved = [node for node in old if node.output[0] not in outputs]
        stay = [without_graphs(node) for node in moved]
        assert stay == [text for text in map(without_graphs, new) if text in set(stay)]
        assert [node.output[0] for node in old] == [
            node.output[0] for node in new if node.output[0] in {item.output[0] for item in old}
        ]
        labels = {node.output[0]: node.name for node in old}
        assert all(node.name == labels[node.output[0]] for node in new if node.output[0] in labels)


def _record(model: onnx.ModelProto) -> provenance.Provenance:
    record = provenance.read(model)
    assert record is not None
    return record


@settings(PROFILE)
@given(models(ALL_DTYPES), WISHES, TARGETS, st.sampled_from([0.25, 0.06, 0.0, 1e-30]))
def test_restore_inverts_and_bytes_repeat(model: onnx.ModelProto, wish: str, target: str, kappa: float) -> None:
    output, _ = rewritten(model, kappa, lowering=wish, target=target)
    again, _ = rewrite(model, kappa, lowering=wish, target=target)
    assert again.SerializeToString(deterministic=True) == output.SerializeToString(deterministic=True)
    assert restore(output).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert not find_sites(output).sites


@settings(PROFILE)
@given(models(ALL_DTYPES), st.sampled_from([0.25, 1.0]), st.booleans())
def test_a_kappa_input_is_taken_back_too(model: onnx.ModelProto, kappa: float, some: bool) -> None:
    sites = find_sites(model).sites
    assume(sites)
    options = {"exclude": (f"^{_escaped(sites[0].id)}$",)} if some and len(sites) > 1 else {}
    plan = provenance.KappaPlan(kappa=kappa, input_name="k")
    output, _ = rewritten(model, plan, **options)
    assert [value.name for value in output.graph.input][-1] == "k"
    assert restore(output).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def _escaped(text: str) -> str:
    import re

    return re.escape(text)


@settings(PROFILE)
@given(models(ALL_DTYPES), st.sampled_from([0.25, 0.06]), WISHES)
def test_replacing_a_kappa_is_rewriting_the_original(model: onnx.ModelProto, kappa: float, wish: str) -> None:
    first, _ = rewritten(model, 0.5)
    direct, _ = rewritten(model, kappa, lowering=wish)
    once, _ = rewrite(first, kappa, lowering=wish, replace=True)
    twice, _ = rewrite(once, kappa, lowering=wish, replace=True)
    expected = direct.SerializeToString(deterministic=True)
    assert once.SerializeToString(deterministic=True) == expected
    assert twice.SerializeToString(deterministic=True) == expected


def run_model(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    """Evaluate with ONNX Runtime, optimisation off, or with the reference where it has no kernel."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if feeds["x"].dtype.name == "bfloat16":
        plain = onnx.ModelProto()
        plain.CopyFrom(model)
        del plain.graph.sparse_initializer[:]  # nothing reads it, and the reference cannot
        with np.errstate(all="ignore"):
            return [np.asarray(item) for item in ReferenceEvaluator(plain).run(None, feeds)]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()}))


def feeds_for(model: onnx.ModelProto, dtype: str, condition: bool) -> dict[str, Any]:
    return {
        "x": inputs_for(dtype, 0.25),
        "condition": np.asarray(condition),
        "trips": np.asarray(2, dtype=np.int64),
    }


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Compare value for value; -0.0 equals 0.0, NaN equals NaN."""
    return all(
        left.shape == right.shape and bool(np.all((left == right) | ((left != left) & (right != right))))
        for left, right in zip(one, other, strict=True)
    )


@settings(PROFILE)
@given(models(ALL_DTYPES, runnable=True), WISHES, st.booleans())
def test_kappa_zero_computes_what_the_original_computes(model: onnx.ModelProto, wish: str, condition: bool) -> None:
    sites, dtype = find_sites(model).sites, dtype_of(model)
    assume(sites)
    # ONNX Runtime has no kernel for it
    assume(not (wish == "thresholded" and any(site.dtype == "float64" for site in sites)))
    output, result = rewritten(model, 0.0, lowering=wish)
    feeds = feeds_for(model, dtype, condition)
    before, after = run_model(model, feeds), run_model(output, feeds)
    if any(row.form == "clip" and row.cap is None for row in result.sites):
        # A Clip without an upper bound makes +inf the largest finite number; JumpReLU keeps it.
        keep = np.isfinite(feeds["x"].astype(np.float64)) & (np.abs(feeds["x"].astype(np.float64)) < 1e4)
        before, after = [item[keep] for item in before], [item[keep] for item in after]
    assert equal(before, after)


@settings(PROFILE)
@given(models(("float32", "float16", "float64"), runnable=True), st.sampled_from([0.25, 0.0625, 3.0]), st.booleans())
def test_all_lowerings_compute_the_same(model: onnx.ModelProto, kappa: float, condition: bool) -> None:
    sites = find_sites(model).sites
    assume(sites)
    feeds = feeds_for(model, dtype_of(model), condition)
    results = []
    for wish in ("where", "thresholded", "custom"):
        if wish == "thresholded" and any(site.dtype == "float64" for site in sites):
            continue
        try:
            results.append(run_model(rewrite(model, kappa, lowering=wish)[0], feeds))
        except RefusalError:
            continue
    plan = provenance.KappaPlan(kappa=kappa, input_name="k")
    try:
        variable = rewrite(model, plan)[0]
    except RefusalError:
        variable = None
    if variable is not None and variable.ir_version >= 4:
        results.append(run_model(variable, {**feeds, "k": np.asarray(kappa, np.float32)}))
    assume(len(results) > 1)
    assert all(equal(results[0], other) for other in results[1:])


ONE_SITE = '<ir_version: {ir}, opset_import: ["" : {opset}]>\ng ({type}[N] x) => ({type}[N] y) {{ y = Relu(x) }}'
SPELLED = {"float16": "float16", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("wish", ["where", "thresholded", "custom"])
@pytest.mark.parametrize("opset", [8, 9, 10, 12, 13, 16, 18, 22, 25])
def test_every_lowering_is_the_numpy_definition(dtype: str, wish: str, opset: int) -> None:
    text = ONE_SITE.format(ir=8 if wish == "custom" else 4, opset=opset, type=SPELLED[dtype])
    model = onnx.parser.parse_model(text)
    if dtype == "bfloat16" and opset < 16:
        return  # Relu takes bfloat16 from opset 13, Where from 16: the form between is Cast and Mul, see the next test
    for wanted in (0.0, 1e-9, 6e-8, 1e-5, 0.06, 0.25, 1.0, 60000.0):
        try:
            output, result = rewrite(model, wanted, lowering=wish)
        except RefusalError:
            return
        if wish == "thresholded" and dtype == "float64":
            return  # a wish that ONNX Runtime has no kernel for; auto never takes it
        (row,) = result.sites
        assert row.kappa == round_kappa(wanted, dtype)
        operand = _every_operand(dtype, row.kappa)
        if row.lowering == "cast_mul":
            operand = operand[~_is_nan(operand)]
        (found,) = run_model(output, {"x": operand})
        expected = jump_relu(operand, row.kappa)
        assert np.array_equal(found, expected), (wanted, operand[found != expected][:3])


def _is_nan(array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(array != array)


def _every_operand(dtype: str, kappa: float) -> np.ndarray:
    """Return all values of a 16-bit type, and the edges and neighbours of a wider one, NaN included."""
    some = inputs_for(dtype, kappa)
    if some.dtype.itemsize == 2:
        return np.arange(2**16, dtype=np.uint16).view(some.dtype)
    return np.append(some, np.asarray([np.nan, -np.nan], dtype=some.dtype))


def test_cast_and_mul_are_the_numpy_definition_in_bfloat16() -> None:
    model = onnx.parser.parse_model(ONE_SITE.format(ir=7, opset=13, type="bfloat16"))
    output, result = rewrite(model, 0.06)
    assert [row.lowering for row in result.sites] == ["cast_mul"]
    operand = _every_operand("bfloat16", 0.06)
    operand = operand[~_is_nan(operand)]
    (found,) = run_model(output, {"x": operand})
    assert np.array_equal(found, jump_relu(operand, result.sites[0].kappa))
