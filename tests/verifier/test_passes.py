"""Right retrofits pass, in every form, type, opset and kind of scope, and nothing passes without having run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from jr_onnx.errors import InputError
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import InputOptions, InputsError, VerifyReport, prove_conversion, verify
from tests.verifier.nets import half_network, image_network, network, save

KAPPA = 0.06


def checks(report: VerifyReport, what: str) -> list[str]:
    return [check.verdict for check in report.checks if check.what.startswith(what)]


def names(report: VerifyReport) -> set[str]:
    return {name for name in report.lowerings if "library" not in name}


@pytest.mark.parametrize("form", ["relu", "clip", "max", "fused_gemm"])
def test_every_form_passes_with_every_lowering(form: str) -> None:
    report = verify(network(form), KAPPA, samples=3)
    assert report, report.failures
    assert names(report) == {"auto", "where", "thresholded", "custom"}
    assert report.sites == 2
    assert not report.not_run


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("form", ["relu", "clip"])
def test_other_types_pass(dtype: str, form: str) -> None:
    report = verify(network(form, dtype=dtype), KAPPA, samples=2)
    assert report, report.failures
    assert set(checks(report, "sites of auto")) == {"passed"}


def test_a_lowering_without_a_kernel_is_not_run_and_a_file_without_one_fails(tmp_path: Path) -> None:
    report = verify(network(dtype="float64"), KAPPA, samples=2)
    silent = [check for check in report.not_run if check.compared.startswith("thresholded")]
    assert len(silent) == 4
    assert all("not run on ONNX Runtime" in check.detail for check in silent)
    path, _ = rewrite(save(network(dtype="float64"), tmp_path), KAPPA, lowering="thresholded")
    report = verify(path, samples=2)
    assert checks(report, "whole model, reference") == ["passed"]
    assert not report, "the original runs on ONNX Runtime, so a retrofit that does not is no replacement for it"
    assert "ThresholdedRelu" in report.failures[0].message
    assert not [check for check in report.checks if check.what.startswith("kappa, ") and check.verdict == "passed"]


def test_sixteen_bits_are_tried_with_all_values() -> None:
    report = verify(network(dtype="float16"), KAPPA, samples=1)
    tried = [check.samples for check in report.checks if check.what == "sites of auto"]
    assert tried == [65536, 65536]


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_a_network_in_float16_passes_however_its_relu_is_run(opset: int) -> None:
    report = verify(half_network(opset), KAPPA, samples=4)
    assert report, report.failures
    assert not report.not_run
    assert all(check.bound is not None for check in report.checks if check.what.startswith("kappa"))


@pytest.mark.parametrize("opset", [7, 8])
@pytest.mark.parametrize("form", ["relu", "clip"])
def test_opset_seven_and_eight_use_cast_and_mul(opset: int, form: str) -> None:
    report = verify(network(form, opset=opset, ir_version=4), KAPPA, samples=2)
    assert report, report.failures
    assert names(report) == {"auto", "cast_mul"}
    assert any(text.startswith("custom: ") for text in report.refused_lowerings)


# The bounds of the Clip are initializers, which a function does not see.
@pytest.mark.parametrize(("scope", "form"), [("function", "relu"), ("branch", "relu"), ("branch", "clip")])
def test_functions_and_branches_pass_by_the_reference(scope: str, form: str) -> None:
    report = verify(network(form, scope=scope, sites=1), KAPPA, samples=2)
    assert report, report.failures
    assert checks(report, "sites in place") == ["not run"]
    assert checks(report, "reference run") == ["passed"]


def test_bfloat16_is_verified_by_the_reference_and_never_called_run() -> None:
    report = verify(network(dtype="bfloat16", opset=22, ir_version=10, sites=1), KAPPA)
    assert report, report.failures
    on_ort = [check for check in report.checks if "ONNX Runtime" in check.compared]
    assert on_ort
    assert {check.verdict for check in on_ort} == {"not run"}
    assert checks(report, "whole model, reference").count("passed") >= 3
    assert any(check.compared.startswith("ONNX reference") and check.samples == 65536 for check in report.checks)


@pytest.mark.parametrize("fused", [False, True])
def test_convolutions_pass_on_real_digits(fused: bool) -> None:
    report = verify(image_network(fused=fused), KAPPA, samples=4, input_options=InputOptions(data="digits"))
    assert report, report.failures
    assert "digits" in report.inputs
    assert report.samples == 4
    assert checks(report, "between the sites") == ["passed"]


def test_a_file_is_verified_as_it_is_with_its_original(tmp_path: Path) -> None:
    source = save(network(), tmp_path)
    path, _ = rewrite(source, KAPPA, lowering="custom")
    report = verify(path, original=source, samples=2)
    assert report, report.failures
    assert checks(report, "original") == ["passed"]
    assert report.original == "given (net.onnx)"
    assert report.lowerings[0] == "the file"


def test_without_the_original_its_digest_speaks(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(), tmp_path), KAPPA)
    report = verify(path, samples=1)
    assert report, report.failures
    assert checks(report, "original") == ["passed"]


def test_a_converted_model_is_compared_with_the_converted_original(tmp_path: Path) -> None:
    source = save(network(opset=11), tmp_path)
    path, _ = rewrite(source, KAPPA, opset=17, prove=prove_conversion)
    assert verify(path, original=source, samples=1)
    alone = verify(path, samples=1)
    assert alone
    assert checks(alone, "original") == ["not run"]


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    model = network()
    convert_model_to_external_data(model, all_tensors_to_one_file=True, location="net.data", size_threshold=0)
    onnx.save_model(model, tmp_path / "net.onnx")
    path, _ = rewrite(tmp_path / "net.onnx", KAPPA, hash_data=True)
    report = verify(path, original=tmp_path / "net.onnx", samples=2)
    assert report, report.failures
    assert checks(report, "external data") == ["passed"]
    assert checks(report, "reference run") == ["passed"]


def test_a_kappa_map_leaves_other_sites_alone(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(), tmp_path), {"act1": 0.25})
    report = verify(path, samples=2)
    assert report, report.failures
    assert report.sites == 1


def test_ids_that_contain_one_another_are_told_apart(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(sites=11), tmp_path), {r"\Aact1\Z": 0.25})
    report = verify(path, samples=1)
    assert report, report.failures
    assert report.sites == 1


def test_the_report_survives_json() -> None:
    report = verify(network(sites=1), KAPPA, samples=1)
    assert loads(VerifyReport, dumps(report)) == report


def test_a_plain_model_needs_a_kappa_and_a_retrofit_has_one(tmp_path: Path) -> None:
    source = save(network(), tmp_path)
    with pytest.raises(InputError, match="is not a retrofit, and no kappa"):
        verify(source)
    path, _ = rewrite(source, KAPPA)
    with pytest.raises(InputError, match="is a retrofit and has its own kappa"):
        verify(path, KAPPA)
    with pytest.raises(InputError, match="ORIGINAL was given"):
        verify(source, source, KAPPA)


def test_the_original_comes_second_as_on_the_command_line(tmp_path: Path) -> None:
    source = save(network(), tmp_path)
    path, _ = rewrite(source, KAPPA)
    report = verify(path, source, samples=1)
    assert report
    assert report.original == f"given ({source.name})"
    # A number can be nothing but kappa, which earlier releases took there.
    assert verify(source, KAPPA, samples=1) == verify(source, kappa=KAPPA, samples=1)


def test_an_original_that_does_not_run_is_named_as_such() -> None:
    input_options = InputOptions(shapes={"x": (3, 5)})
    with pytest.raises(InputsError, match="the original does not run on random inputs") as caught:
        verify(network(), KAPPA, input_options=input_options)
    assert caught.value.exit_code == 8


def test_given_inputs_are_used() -> None:
    import numpy as np

    report = verify(network(), KAPPA, inputs={"x": np.ones((3, 8), dtype=np.float32)})
    assert report, report.failures
    assert (report.samples, report.inputs) == (1, "given")


def test_a_given_input_that_the_original_refuses_is_an_input_error() -> None:
    import numpy as np

    with pytest.raises(InputsError, match="does not run on these inputs"):
        verify(network(), KAPPA, inputs=[{"x": np.ones((3, 5), dtype=np.float32)}])
    with pytest.raises(InputError, match="empty"):
        verify(network(), KAPPA, inputs=[])
