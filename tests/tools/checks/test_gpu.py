"""The GPU program: without a GPU it passes nothing; its logic is tried on the CPU provider."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jr_onnx.errors import JrError
from jr_onnx.records import dumps, loads
from tests.runtime.exact_nets import convnet
from tools.checks.gpu import agreement, bandwidth, bias, kernel, models, placement, replay, sessions
from tools.checks.gpu import run as check_gpu
from tools.checks.gpu.findings import Finding, GpuReport, SkipCheckError, Verdict, run_check
from tools.checks.gpu.sessions import CPU, open_session, require_on

ON_CPU: list[Any] = [CPU]


@pytest.fixture
def no_gpu() -> None:
    if sessions.has_gpu():
        pytest.skip("there is a GPU here, so its absence cannot be tried")


def test_without_a_gpu_everything_is_skipped_and_nothing_passes(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "gpu.md"
    page.write_text("not measured yet\n<!-- figures: begin -->\n<!-- figures: end -->\n", encoding="utf-8")
    code = check_gpu.main(["--output", str(tmp_path / "report.json"), "--write", str(page)])
    assert code == check_gpu.NOTHING_CHECKED
    report = loads(GpuReport, (tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [finding.name for finding in report.findings] == list(check_gpu.all_checks([], quick=False))
    assert {finding.status for finding in report.findings} == {"skipped"}
    assert {finding.summary for finding in report.findings} == {"skipped: no GPU"}
    assert "nothing was checked" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8").startswith("not measured yet\n<!-- figures: begin -->\n<!-- figures: end")


@pytest.mark.gpu
def test_on_a_gpu_no_check_fails(tmp_path: Path) -> None:
    if not sessions.has_gpu():
        pytest.skip("no GPU that onnxruntime can use")
    code = check_gpu.main(["--quick", "--output", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    failed = [finding for finding in report["findings"] if finding["status"] == "failed"]
    assert (code, failed) == (0, [])


def test_a_check_that_breaks_has_failed_and_one_that_cannot_be_made_is_skipped() -> None:
    def breaks() -> Verdict:
        raise JrError("the kernel\nis gone")

    def cannot() -> Verdict:
        raise SkipCheckError("no torch")

    broken = run_check("a", breaks, has_gpu=True)
    assert (broken.status, broken.summary) == ("failed", "JrError: the kernel is gone")
    skipped = run_check("b", cannot, has_gpu=True)
    assert (skipped.status, skipped.summary) == ("skipped", "skipped: no torch")
    good = run_check("c", lambda: Verdict("passed", "well", {"n": 1}), has_gpu=True)
    assert (good.name, good.status, good.figures) == ("c", "passed", {"n": 1})


@pytest.mark.parametrize("opset", [21, 22])
def test_placement_is_read_from_a_run(opset: int) -> None:
    verdict = placement.thresholded_relu(opset, ON_CPU)
    assert verdict.figures == {"provider": CPU, "copies": 0}


def test_fusion_is_read_from_the_optimised_graph() -> None:
    assert placement.conv_relu_fusion(ON_CPU).figures["fused"] == 1.0


def test_the_kernel_is_compared_in_every_type() -> None:
    verdict = kernel.eager(ON_CPU, "cpu")
    assert verdict.status == "passed", verdict.summary
    assert verdict.figures == {"compared": 2 * 4 * len(kernel.LENGTHS), "wrong": 0}


@pytest.mark.parametrize("check", [kernel.eager, kernel.bound, replay.captured_kernel])
def test_a_wrong_kernel_fails(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a definition that is off by one sign bit every comparison must fail."""

    def wrong(z: Any, dtype: str, cap: float | None) -> Any:
        result = kernel_expected(z, dtype, cap).copy()
        if result.size:
            result[0] = 1
        return result

    kernel_expected = kernel.expected
    monkeypatch.setattr(kernel, "expected", wrong)
    monkeypatch.setattr(replay, "expected", wrong)
    verdict = check(ON_CPU, "cpu") if check is kernel.eager else check(ON_CPU, "cpu", "cpu")
    assert verdict.status == "failed"
    assert verdict.figures["wrong"] > 1


def test_the_fused_kernel_is_compared_in_every_type(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = bias.eager(ON_CPU, "cpu")
    assert (verdict.status, verdict.figures) == ("passed", {"compared": 4 * 2 * 2 * 2 * len(bias.SHAPES), "wrong": 0})
    monkeypatch.setattr(bias, "KAPPA", 0.5)
    monkeypatch.setattr(bias, "expected", lambda *_: np.zeros(1))
    assert bias.eager(ON_CPU, "cpu").figures["wrong"] == verdict.figures["compared"]


def test_the_fused_kernels_bandwidth_is_judged_against_the_copy() -> None:
    good = bias.judge(1.0, 1.05, 1.55, copied=10**9, elements=10**9)
    assert (good.status, good.figures["copy_gb_s"]) == ("passed", 8.0)
    assert good.figures["part_of_copy"] == pytest.approx(1 / 1.05)
    assert bias.judge(1.0, 1.05, 1.8, copied=10**9, elements=10**9).status == "failed"
    assert bias.pass_seconds((1, 4, 8, 8), residual=True, providers=ON_CPU, target="cpu", device="cpu") > 0


def test_bound_memory_and_fixed_places() -> None:
    assert kernel.bound(ON_CPU, "cpu", "cpu").status == "passed"
    assert kernel.unaligned(ON_CPU, "cpu", "cpu").status == "passed"
    assert replay.captured_kernel(ON_CPU, "cpu", "cpu").status == "passed"


def test_different_draws_are_counted() -> None:
    assert replay.replayed_random_uniform(ON_CPU, "cpu").figures["different"] > 1
    assert replay.replayed_own_draw(ON_CPU, "cpu", "cpu").figures["different"] > 1
    assert replay._distinct([0.3, 0.3, 0.3]).summary == "the same value at every replay"


def test_samples_hold_the_values_that_matter() -> None:
    for dtype in ("float32", "float16", "float64"):
        z = kernel.sample(257, dtype)
        own = np.asarray(kernel.round_kappa(kernel.KAPPA, dtype), dtype=dtype)
        assert np.isnan(z).any()
        assert (np.isinf(z) & (z < 0)).any()
        assert (z == own).any()
        assert (z == np.nextafter(own, own * 2)).any()
    assert kernel.sample(0, "bfloat16").size == 0


def test_bandwidth_is_judged_against_the_copy() -> None:
    good = bandwidth.judge(1.05, 1.0, 1.1, elements=10**9)
    assert good.status == "passed"
    assert good.figures["copy_gb_s"] == 8.0
    assert good.figures["part_of_copy"] == pytest.approx(1 / 1.05)
    assert bandwidth.judge(1.2, 1.0, 1.1).status == "failed"
    assert bandwidth.kernel_seconds(1 << 12, ON_CPU, "cpu", "cpu") > 0


def test_results_are_saved_after_every_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is killed keeps what it had; one that runs out of time says which checks it left out."""
    path = tmp_path / "report.json"

    def first() -> Verdict:
        assert not path.exists()
        return Verdict("measured", "well", {})

    def killed() -> Verdict:
        assert [item["name"] for item in json.loads(path.read_text(encoding="utf-8"))["findings"]] == ["first"]
        raise KeyboardInterrupt

    monkeypatch.setattr(check_gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(check_gpu, "CHECKS", {"first": first, "second": killed})
    with pytest.raises(KeyboardInterrupt):
        check_gpu.main(["--quick", "--output", str(path)])
    kept = loads(GpuReport, path.read_text(encoding="utf-8"))
    assert [(finding.name, finding.status) for finding in kept.findings] == [("first", "measured")]
    assert (
        check_gpu.main(["--quick", "--output", str(path), "--only", "^f", "--limit-s", "0"])
        == check_gpu.NOTHING_CHECKED
    )
    assert [item.name for item in loads(GpuReport, path.read_text(encoding="utf-8")).findings] == ["first"]
    assert check_gpu.main(["--quick", "--output", str(path), "--limit-s", "0"]) == check_gpu.NOTHING_CHECKED
    late = loads(GpuReport, path.read_text(encoding="utf-8"))
    assert [(finding.name, finding.summary) for finding in late.findings] == [
        ("first", "skipped: out of time"),
        ("second", "skipped: out of time"),
    ]


def test_what_was_not_timed_comes_first() -> None:
    every = list(check_gpu.all_checks([], quick=False))
    assert tuple(every[: len(check_gpu.NOT_TIMED)]) == check_gpu.NOT_TIMED
    assert len(set(every)) == len(every) == len(check_gpu.CHECKS) + 18 + 3 + 2
    assert list(check_gpu.all_checks([], quick=True)) == list(check_gpu.CHECKS)


def test_a_device_that_computes_something_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    same = agreement.with_the_cpu(ON_CPU)
    assert (same.status, same.figures["relative_difference"]) == ("passed", 0.0)
    sessions_opened = 0

    def first_is_wrong(model: Any, providers: Any) -> Any:
        nonlocal sessions_opened
        sessions_opened += 1
        other = onnx.ModelProto()
        other.CopyFrom(model)
        if sessions_opened == 1:
            weight = other.graph.initializer[0]
            weight.raw_data = bytes(len(weight.raw_data))
        return open_session(other, providers)

    monkeypatch.setattr(agreement, "open_session", first_is_wrong)
    assert agreement.with_the_cpu(ON_CPU).status == "failed"


def test_a_network_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "build", lambda _: convnet())
    verdict = agreement.verified("a network", "cpu", samples=1)
    assert (verdict.status, verdict.figures["failed"]) == ("passed", 0)
    assert verdict.summary.startswith("verified: ")


def test_models_are_measured_on_a_provider() -> None:
    found = models.measure("wide_resnet", provider="cpu", batches=(1,), rounds=1)
    assert [row.variant for row in found.cases[0].rows] == ["original", "where", "thresholded", "custom", "optimised"]


def test_networks_come_in_float16_too() -> None:
    model = models.network("wide_resnet", "float16")
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}
    found = models.measure(
        "wide_resnet", dtype="float16", provider="cpu", batches=(1,), rounds=1, lowerings=("custom",)
    )
    assert [row.variant for row in found.cases[0].rows] == ["original", "custom"]
    assert "float16" in found.cases[0].missing["optimised"]  # the CPU's fast way is for float32


def test_a_session_elsewhere_is_noticed() -> None:
    session = open_session(sessions.elementwise([sessions.helper.make_node("Relu", ["x"], ["y"])]), ON_CPU)
    require_on(session, CPU)
    with pytest.raises(JrError, match=f"runs on {CPU}, expected {sessions.CUDA}"):
        require_on(session, sessions.CUDA)


def test_the_page_holds_every_check_and_every_model() -> None:
    benchmark = models.measure("wide_resnet", provider="cpu", batches=(1,), rounds=1)
    findings = (Finding("one", "passed", "well", {}, 0.1), Finding("two", "failed", "wrong", {}, 0.2))
    report = GpuReport(dataclasses.replace(benchmark.environment, gpu="a GPU"), {"torch": "2"}, findings, (benchmark,))
    assert loads(GpuReport, dumps(report)) == report
    text = check_gpu.render(report)
    assert "on a GPU," in text
    assert "| two | failed | wrong |" in text
    assert "| wide_resnet.float32 | 1 | default | " in text
