"""Nothing is called verified that did not run: who failed to load, why, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.errors import ModelError
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import VerifyReport, prove_conversion, verify
from tests.verifier.nets import network, save

KAPPA = 0.06
Plant = Callable[[onnx.ModelProto], None]


def an_output_that_nothing_computes(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("ghost", TensorProto.FLOAT, ["batch", 4]))


def one_name_for_two_values(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["y"], ["z0"], name="again"))


def two_nodes_of_one_name(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["y"], ["further"], name="head"))


def a_function_that_is_missing(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("local.missing", 1))
    model.graph.node.append(helper.make_node("Scale", ["y"], ["scaled"], name="lost", domain="local.missing"))


def an_operator_without_a_kernel(model: onnx.ModelProto) -> None:
    wide = helper.make_node("Cast", ["y"], ["wide"], to=TensorProto.DOUBLE, name="cast")
    model.graph.node.extend([wide, helper.make_node("Softplus", ["wide"], ["softplus"], name="soft")])


def a_newer_ir_version(model: onnx.ModelProto) -> None:
    model.ir_version = 99


BROKEN = [an_output_that_nothing_computes, one_name_for_two_values]
LACKING = [a_function_that_is_missing]


def pair(folder: Path, *, retrofit: Plant | None = None, original: Plant | None = None) -> tuple[Path, Path]:
    """A retrofit and its original, with the same planted before the rewrite or something in one of them after it."""
    model = network()
    if retrofit is original and retrofit is not None:
        retrofit(model)
    source = save(model, folder)
    path, _ = rewrite(source, KAPPA)
    for file, plant in ((path, retrofit), (source, original)):
        if plant is not None and retrofit is not original:
            model = onnx.load(file)
            plant(model)
            file.write_bytes(model.SerializeToString(deterministic=True))
    return path, source


def whole(report: VerifyReport) -> set[str]:
    return {check.verdict for check in report.checks if check.of_whole_model}


@pytest.mark.parametrize("plant", BROKEN + LACKING)
def test_where_neither_loads_the_sites_are_proved_and_the_model_was_not_run(tmp_path: Path, plant: Plant) -> None:
    path, source = pair(tmp_path, retrofit=plant, original=plant)
    report = verify(path, original=source, samples=1)
    assert report.conclusion == "model not run"
    assert not report
    assert not report.failures
    assert "passed" in {check.verdict for check in report.checks if check.what == "sites of the file"}
    assert "ONNX Runtime cannot load the original" in report.reason
    assert report.broken == (plant in BROKEN)


@pytest.mark.parametrize(
    "plant", [*BROKEN, *LACKING, an_operator_without_a_kernel, two_nodes_of_one_name, a_newer_ir_version]
)
def test_where_only_the_retrofit_does_not_load_it_fails(tmp_path: Path, plant: Plant) -> None:
    path, source = pair(tmp_path, retrofit=plant)
    report = verify(path, original=source, samples=1)
    assert report.conclusion == "failed"
    if plant is two_nodes_of_one_name:  # ONNX Runtime takes it; the file is not the retrofit of that original
        assert "original" in {failure.check for failure in report.failures}
    else:
        assert "the original loads" in {failure.expected for failure in report.failures}


@pytest.mark.parametrize("plant", BROKEN)
def test_where_only_the_original_does_not_load_nothing_is_verified(tmp_path: Path, plant: Plant) -> None:
    path, source = pair(tmp_path, original=plant)
    report = verify(path, original=source, samples=1)
    assert not report
    assert "passed" not in whole(report)


def test_what_only_this_onnx_runtime_lacks_is_left_to_the_evaluator_of_onnx(tmp_path: Path) -> None:
    plant = an_operator_without_a_kernel
    path, source = pair(tmp_path, retrofit=plant, original=plant)
    report = verify(path, original=source, samples=1)
    assert report.conclusion == "verified", report.failures
    assert "ONNX Runtime cannot load the original" in report.not_loaded
    assert not report.broken
    assert whole(report) == {"passed", "not run"}


def test_the_command_says_it_with_an_exit_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = an_output_that_nothing_computes
    path, source = pair(tmp_path, retrofit=plant, original=plant)
    assert run(["verify", str(path), str(source), "--samples", "1"]) == 9
    said = capsys.readouterr()
    assert "SITES PROVED, MODEL NOT RUN" in said.out
    assert "is not verified: the model was not run: ONNX Runtime cannot load the original" in said.err
    assert "repair the original" in said.err
    assert run(["verify", str(path), str(source), "--samples", "1", "--json"]) == 9
    record = json.loads(capsys.readouterr().out)
    assert (record["conclusion"], record["broken"]) == ("model not run", True)
    assert "ghost" in record["not_loaded"]


def test_missing_external_data_is_no_model(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    onnx.save_model(network(), source, save_as_external_data=True, location="net.data", size_threshold=0)
    path, _ = rewrite(source, KAPPA)
    assert verify(path, original=source, samples=1).conclusion == "verified"
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"net\.data"):
        verify(path, original=source, samples=1)


def test_a_model_that_draws_random_numbers_is_verified_at_its_sites_in_place(tmp_path: Path) -> None:
    source = network()
    source.graph.node.extend(
        [
            helper.make_node("RandomNormalLike", ["y"], ["noise"], name="noise"),
            helper.make_node("Add", ["y", "noise"], ["noisy"], name="disturb"),
        ]
    )
    source.graph.output[0].name = "noisy"
    path, _ = rewrite(save(source, tmp_path), KAPPA)
    report = verify(path, samples=2)
    assert report.conclusion == "verified"
    assert [check.verdict for check in report.checks if check.what == "sites in place"] == ["passed"]
    assert any("draws random numbers" in check.detail for check in report.not_run)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.name == "act0").attribute[0].f = 0.5
    onnx.save(model, path)
    failed = {check.what for check in verify(path, samples=2).checks if check.verdict == "failed"}
    assert {"sites of the file", "sites in place"} <= failed


def test_a_conversion_that_computes_something_else_fails(tmp_path: Path) -> None:
    source = save(network(opset=13), tmp_path)
    path, _ = rewrite(source, KAPPA, opset=18, prove=prove_conversion)
    report = verify(path, original=source, samples=2)
    assert report, report.failures
    assert [check.verdict for check in report.checks if check.what == "conversion"] == ["passed"]
    # What a wrong converter would leave behind: the same nodes, another weight, the digest of the true source.
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "last")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), "last"))
    onnx.save(model, path)
    assert not verify(path, original=source, samples=2)
    record = provenance.read(model)
    assert record is not None
    assert record.converted_from_opset == 13


def test_a_file_whose_function_was_taken_away_fails(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(scope="function"), tmp_path), KAPPA)
    model = onnx.load(path)
    del model.functions[:]
    onnx.save(model, path)
    with pytest.raises(ModelError, match="no longer has the scope"):
        verify(path, original=tmp_path / "net.onnx", samples=1)
