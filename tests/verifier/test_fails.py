"""Every check can fail: one defect is planted in a right retrofit, and verify must name it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jr_onnx import provenance
from jr_onnx.cli.app import run
from jr_onnx.errors import VerificationError
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier import Failure, VerifyReport, verify
from tests.verifier.nets import image_network, network, save

KAPPA = 0.06
Plant = Callable[[onnx.ModelProto], None]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def spoiled(tmp_path: Path, source: onnx.ModelProto, lowering: str, plant: Plant) -> tuple[Path, Path]:
    original = save(source, tmp_path)
    path, _ = rewrite(original, KAPPA, lowering=lowering)
    model = onnx.load(path, load_external_data=False)
    plant(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path, original


def failed(report: VerifyReport) -> set[str]:
    return {check.what for check in report.checks if check.verdict == "failed"}


def at(report: VerifyReport, what: str) -> Failure:
    return next(failure for failure in report.failures if failure.check.startswith(what))


def test_one_site_with_the_next_float_as_kappa_is_named(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        (alpha,) = node(model, "act1").attribute
        alpha.f = float(np.nextafter(np.float32(alpha.f), np.float32(1)))

    path, original = spoiled(tmp_path, network(), "thresholded", plant)
    report = verify(path, original=original, samples=2)
    assert not report
    assert "sites of the file" in failed(report)
    failure = at(report, "sites of the file")
    assert failure.site == "act1"
    # The one value that tells the two kappas apart: the next float above kappa.
    assert failure.given == f"z = {float(np.nextafter(np.float32(KAPPA), np.float32(1)))!r} (float32)"
    assert failure.found.startswith("0.0 ")


def test_greater_or_equal_is_seen_at_kappa_alone(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        node(model, "a0/jr_above").op_type = "GreaterOrEqual"

    path, original = spoiled(tmp_path, network(), "where", plant)
    report = verify(path, original=original, samples=2)
    failure = at(report, "sites of the file")
    assert (failure.site, failure.expected) == ("act0", "0.0 (float32)")
    assert failure.given == f"z = {float(np.float32(KAPPA))!r} (float32)"
    assert "kappa, plain" not in failed(report), "random inputs do not hit kappa; the site alone shows it"


def test_another_cap_is_named(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "high1":
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(0.75, dtype=np.float32), "high1"))

    path, original = spoiled(tmp_path, network("clip"), "where", plant)
    report = verify(path, original=original, samples=4)
    assert at(report, "sites of the file").site == "act1"
    assert "original" in failed(report), "the cap is an initializer of the original"


def test_a_nan_that_passes_is_named(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        # Where(not (z - kappa <= 0), z, 0): right for numbers, forwards NaN.
        node(model, "a0/jr_above").op_type = "LessOrEqual"
        chosen = node(model, "act0")
        chosen.input[1], chosen.input[2] = chosen.input[2], chosen.input[1]

    path, _ = spoiled(tmp_path, network(), "where", plant)
    report = verify(path, samples=2)
    failure = at(report, "sites of the file")
    assert (failure.site, failure.given, failure.expected) == ("act0", "z = nan (float32)", "0.0 (float32)")


def test_a_site_that_reads_another_tensor_is_named(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        node(model, "act1").input[0] = "a0"

    path, original = spoiled(tmp_path, network(), "thresholded", plant)
    report = verify(path, original=original, samples=2)
    assert "act1 reads 'a0'" in at(report, "sites of the file").message
    assert "kappa, plain" in failed(report)


def test_swapped_sites_are_found_in_the_whole_model(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        first, second = node(model, "act1"), node(model, "act2")
        first.input[0], second.input[0] = second.input[0], first.input[0]
        for item in model.graph.node:
            if item.name == "mul2":
                item.input[0] = "a0"

    path, _ = spoiled(tmp_path, network(sites=3), "thresholded", plant)
    report = verify(path, samples=2)
    assert not report
    assert at(report, "sites of the file").message


def test_an_edited_weight_is_named_with_the_original_and_without_its_digest(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        values = numpy_helper.to_array(model.graph.initializer[0]).copy()
        values.reshape(-1)[5] += np.float32(1e-3)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, model.graph.initializer[0].name))

    path, original = spoiled(tmp_path, network(), "thresholded", plant)
    report = verify(path, original=original, samples=2)
    assert "original" in failed(report)
    assert "initializer[0]" in at(report, "original").message
    assert "kappa, plain" in failed(report)
    assert "between the sites" in failed(report)
    alone = verify(path, samples=2)
    assert [check.verdict for check in alone.checks if check.what == "original"] == ["not run"]


def test_a_tampered_record_is_named(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == provenance.METADATA_KEY:
                rounded = repr(float(np.float32(KAPPA)))
                entry.value = entry.value.replace(f'"kappa": {rounded}', '"kappa": 0.125', 1)

    path, _ = spoiled(tmp_path, network(), "thresholded", plant)
    report = verify(path, samples=1)
    assert at(report, "provenance").site == "act0"
    assert at(report, "sites of the file").site == "act0"


def test_a_bias_behind_a_site_is_found_between_the_sites(tmp_path: Path) -> None:
    def plant(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.full(4, 1e-4, dtype=np.float32), "bias"))
        head = node(model, "head")
        head.output[0] = "y_plain"
        model.graph.node.append(helper.make_node("Add", ["y_plain", "bias"], ["y"], name="planted"))

    path, original = spoiled(tmp_path, network(), "where", plant)
    report = verify(path, original=original, samples=1)
    assert {"between the sites", "reference run", "kappa, plain", "original"} <= failed(report)


def test_a_wrong_unfused_convolution_is_found_at_kappa_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.rewriter.detect import fused

    right = fused._plain

    def wrong(found: onnx.NodeProto, op_type: str, domain: str, inputs: list[str], keep: set[str]) -> onnx.NodeProto:
        return right(found, op_type, domain, inputs, keep - {"strides"})

    monkeypatch.setattr(fused, "_plain", wrong)
    report = verify(image_network(fused=True), KAPPA, samples=1)
    assert "kappa 0, plain" in failed(report)


def test_a_lowering_that_differs_from_the_others_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from jr_onnx.rewriter import lowering
    from jr_onnx.rewriter.lowering.base import Jump, Names

    right = lowering.LOWERINGS["where"]

    def wrong(jump: Jump, names: Names) -> list[onnx.NodeProto]:
        nodes = right(jump, names)
        if jump.result == "a1":
            nodes[-1].input[1] = nodes[-1].input[2]
        return nodes

    monkeypatch.setitem(lowering.LOWERINGS, "where", wrong)
    report = verify(network(), KAPPA, samples=1)
    assert {"sites of where", "kappa, plain", "kappa 0, plain"} <= failed(report)
    failure = next(item for item in report.failures if item.check == "kappa, plain")
    assert failure.site == "act1"


def test_changed_external_data_is_found(tmp_path: Path) -> None:
    model = network()
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    path, _ = rewrite(tmp_path / "net.onnx", KAPPA, hash_data=True)
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[0:4] = struct.pack("<f", 0.5)
    (tmp_path / "net.data").write_bytes(bytes(data))
    report = verify(path, samples=1)
    assert at(report, "external data").given == "net.data"


def test_the_command_leaves_with_one_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def plant(model: onnx.ModelProto) -> None:
        node(model, "act0").attribute[0].f = 0.07

    path, original = spoiled(tmp_path, network(), "thresholded", plant)
    assert run(["verify", str(path), str(original), "--samples", "1"]) == 1
    said = capsys.readouterr()
    assert "FAILED" in said.out
    assert "NOT VERIFIED" in said.out
    assert "site act0" in said.err
    assert "expected" in said.err


def test_another_model_as_the_original_is_named_as_such(tmp_path: Path) -> None:
    path, _ = rewrite(save(network(), tmp_path), 0.06)
    other = tmp_path / "other.onnx"
    onnx.save(network(sites=1), other)
    with pytest.raises(VerificationError, match="cannot be rewritten like the retrofit") as caught:
        verify(path, original=other)
    assert "Give the very model that was rewritten" in caught.value.hint


@pytest.mark.parametrize("more", ["outputs", "inputs"])
@pytest.mark.parametrize("where", ["retrofit", "original"])
def test_other_inputs_or_outputs_than_the_originals_are_named(tmp_path: Path, where: str, more: str) -> None:
    def plant(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
        if more == "outputs":
            model.graph.node.append(helper.make_node("Constant", [], ["more"], value_floats=[1.0]))
        getattr(model.graph, more[:-1]).append(value)

    path, original = spoiled(tmp_path, network(), "thresholded", plant if where == "retrofit" else lambda _: None)
    if where == "original":
        model = onnx.load(original)
        plant(model)
        onnx.save(model, original)
    report = verify(path, original=original, samples=2)
    assert report.conclusion == "failed"
    failure = at(report, "whole model")
    assert "more" in (failure.found if where == "retrofit" else failure.expected)
    assert more in failure.message
