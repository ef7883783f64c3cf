"""Both orders of retrofit and quantisation, with ONNX Runtime's quantisers; docs/quantised.md says which is right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx import provenance
from jr_onnx.errors import InputError, NoSiteError, VerificationError
from jr_onnx.modelfile import load
from jr_onnx.rewriter import restore, rewrite
from jr_onnx.semantics import jump_relu
from jr_onnx.verifier import verify
from jr_onnx.verifier.evaluators.ort import Runnable
from jr_onnx.verifier.whole_model.steps import StepEffects
from tests.verifier.nets import save
from tests.verifier.quantising import STATIC, classifier, dynamically_quantised, images, in_float16, quantised

KAPPA = 0.2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the quantisers say of themselves
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(classifier(), tmp_path)


def outputs(path: Path, *names: str) -> list[Any]:
    model = onnx.load(path)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kind = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    found: list[Any] = session.run(list(names) or None, {"x": images(16).astype(kind)})
    return found


def site_is_j(path: Path, number: int, kappa: float) -> bool:
    """Run the file and compare one site's result with NumPy's J of what its node reads."""
    model = onnx.load(path)
    jump = next(node for node in model.graph.node if f"a{number}" in node.output)
    z, y = outputs(path, jump.input[0], f"a{number}")
    return bool(np.array_equal(jump_relu(z, kappa), y)) and bool((y == 0).any()) and bool((y > 0).any())


@pytest.mark.parametrize("how", STATIC)
@pytest.mark.parametrize("lowering", ["thresholded", "custom"])
def test_a_retrofit_that_is_quantised_statically_is_verified(
    tmp_path: Path, source: Path, how: str, lowering: Any
) -> None:
    retrofit, _ = rewrite(source, KAPPA, lowering=lowering)
    path = quantised(retrofit, tmp_path / "q.jr.onnx", how)
    report = verify(path, samples=8)
    assert report, report.failures
    assert report.sites == 3
    place = next(check for check in report.checks if check.what == "sites in place")
    assert (place.verdict, place.max_difference) == ("passed", 0)
    with pytest.raises(InputError, match="was quantised after the rewrite"):
        verify(path, original=source, samples=1)
    if lowering == "thresholded":
        assert all(site_is_j(path, number, float(np.float32(KAPPA))) for number in (1, 2, 3))


@pytest.mark.parametrize("how", STATIC)
def test_a_quantised_network_that_kept_its_relus_is_retrofitted_and_verified(
    tmp_path: Path, source: Path, how: str
) -> None:
    kept = quantised(source, tmp_path / "q.onnx", how, keep=True)
    path, result = rewrite(kept, KAPPA)
    assert len(result.sites) == 3
    assert not result.refusals, "the quantisers in front of ReLUs that were kept hide none"
    report = verify(path, original=kept, samples=8)
    assert report, report.failures
    assert "passed" in {check.verdict for check in report.checks if check.what == "reference run"}
    assert all(site_is_j(path, number, float(np.float32(KAPPA))) for number in (1, 2, 3))


def test_a_quantised_network_whose_relus_were_folded_says_what_to_do(tmp_path: Path, source: Path) -> None:
    folded = quantised(source, tmp_path / "q.onnx", "int8")
    with pytest.raises(NoSiteError, match="QDQKeepRemovableActivations"):
        rewrite(folded, KAPPA)


@pytest.mark.parametrize("order", ["retrofit first", "quantise first"])
def test_dynamic_quantisation_works_in_both_orders(tmp_path: Path, source: Path, order: str) -> None:
    if order == "retrofit first":
        path = dynamically_quantised(rewrite(source, KAPPA)[0], tmp_path / "q.jr.onnx")
    else:
        path, _ = rewrite(dynamically_quantised(source, tmp_path / "q.onnx"), KAPPA)
    report = verify(path, samples=8)
    assert report, report.failures
    assert all(site_is_j(path, number, float(np.float32(KAPPA))) for number in (1, 2, 3))


def test_float16_is_converted_first(tmp_path: Path, source: Path) -> None:
    path, result = rewrite(in_float16(source, tmp_path / "half.onnx"), KAPPA)
    assert {site.kappa for site in result.sites} == {float(np.float16(KAPPA))}
    report = verify(path, samples=4)
    assert report, report.failures
    wrong = in_float16(rewrite(source, KAPPA)[0], tmp_path / "half.jr.onnx")
    report = verify(wrong, samples=4)
    assert report.conclusion == "failed"
    assert "converted after the rewrite" in report.failures[0].message


def test_capped_sites_are_quantised_first(tmp_path: Path) -> None:
    source = save(classifier(capped=True), tmp_path)
    path, _ = rewrite(quantised(source, tmp_path / "q.onnx", "int8", keep=True), KAPPA)
    report = verify(path, samples=8)
    assert report, report.failures
    # The quantiser drops the bounds of the Clip, which the custom operator does not read, so they cannot come back.
    retrofit, _ = rewrite(source, KAPPA, lowering="custom")
    with pytest.raises(VerificationError, match="'low' is not defined"):
        verify(quantised(retrofit, tmp_path / "q.jr.onnx", "int8"), samples=1)


def test_the_provenance_of_a_quantised_retrofit_gives_back_the_quantised_original(tmp_path: Path, source: Path) -> None:
    retrofit, _ = rewrite(source, KAPPA)
    path = quantised(retrofit, tmp_path / "q.jr.onnx", "int8")
    record = provenance.read(onnx.load(path))
    assert record is not None
    restored = restore(onnx.load(path))
    relus = [node for node in restored.graph.node if node.op_type == "Relu"]
    makers = {name: node.op_type for node in restored.graph.node for name in node.output}
    assert [makers[node.input[0]] for node in relus] == ["DequantizeLinear"] * 3
    plain = provenance.read(onnx.load(retrofit))
    assert plain is not None
    assert [site.kappa for site in record.sites] == [site.kappa for site in plain.sites]
    again = rewrite(restored, KAPPA)[0]
    onnx.save(again, tmp_path / "again.onnx")
    assert np.array_equal(outputs(tmp_path / "again.onnx")[0], outputs(path)[0])


def edited(path: Path, change: str) -> Path:
    model = onnx.load(path)
    jump = next(node for node in model.graph.node if "a2" in node.output)
    if change == "another kappa":
        jump.attribute[0].f = 0.25
    elif change == "a site skipped":
        jump.op_type = "Relu"
        del jump.attribute[:]
    else:
        first = next(node for node in model.graph.node if "a1" in node.output)
        jump.input[0] = first.input[0]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("change", ["another kappa", "a site skipped", "another operand"])
def test_a_wrong_site_of_a_quantised_retrofit_fails(tmp_path: Path, source: Path, change: str) -> None:
    retrofit, _ = rewrite(source, KAPPA)
    path = edited(quantised(retrofit, tmp_path / "q.jr.onnx", "int8"), change)
    assert verify(path, samples=4).conclusion == "failed"


def test_a_jump_between_quantised_constants_is_no_j(tmp_path: Path, source: Path) -> None:
    retrofit, _ = rewrite(source, KAPPA, lowering="where")
    path = quantised(retrofit, tmp_path / "q.jr.onnx", "int8")
    assert not verify(path, samples=4)


@pytest.fixture
def effects(tmp_path: Path, source: Path) -> tuple[StepEffects, Path]:
    retrofit, _ = rewrite(source, KAPPA)
    path = quantised(retrofit, tmp_path / "q.jr.onnx", "int8")
    return StepEffects(Runnable("it", load(path), as_file=True), ["logits"]), path


def one_step_aside(path: Path, sample: Any, value: str) -> Any:
    """Return the logits of a run in which one element of a quantised value is one step larger."""
    model = onnx.load(path)
    quantiser = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == value)
    (number,) = onnxruntime.InferenceSession(with_output(model, quantiser.output[0])).run([quantiser.output[0]], sample)
    number = number.copy()
    place = np.unravel_index(int(np.where(number < 120, number, -128).argmax()), number.shape)
    number[place] += 1
    fed = onnx.ModelProto()
    fed.CopyFrom(model)
    fed.graph.node.remove(quantiser)
    fed.graph.input.append(helper.make_tensor_value_info(quantiser.output[0], TensorProto.INT8, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(fed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    needed = {item.name for item in session.get_inputs()}
    feeds = {name: array for name, array in {**sample, quantiser.output[0]: number}.items() if name in needed}
    return session.run(["logits"], feeds)


def with_output(model: onnx.ModelProto, name: str) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return bytes(copy.SerializeToString())


def test_one_quantisation_step_is_explained_and_named(effects: tuple[StepEffects, Path]) -> None:
    steps, path = effects
    sample = {"x": images(1, 3)}
    (plain,) = onnxruntime.InferenceSession(path).run(None, sample)
    (moved,) = one_step_aside(path, sample, "z3")
    assert np.abs(moved - plain).max() > 0, "a step of this element moves the outputs"
    assert steps
    flip = steps.explain([plain], [moved], [1e-6], sample)
    assert flip is not None
    assert flip.site in str(flip)
    assert 0 < steps.expected < 1


def test_more_than_steps_can_do_is_explained_by_nothing(effects: tuple[StepEffects, Path]) -> None:
    steps, path = effects
    sample = {"x": images(1, 3)}
    (plain,) = onnxruntime.InferenceSession(path).run(None, sample)
    assert steps.explain([plain], [plain + np.float32(10)], [1e-6], sample) is None
    assert steps.explain([plain], [np.full_like(plain, np.nan)], [1e-6], sample) is None


def test_a_network_without_quantisers_has_no_steps(source: Path) -> None:
    assert not StepEffects(Runnable("it", load(source), as_file=True), ["logits"])
