from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest

from jr_onnx.bench import BenchReport, BenchRequest, benchmark
from jr_onnx.bench.plot import plot
from jr_onnx.bench.profile import summarise
from jr_onnx.bench.variants import SessionKind, Variant
from jr_onnx.errors import InputError, ModelError, OutputError
from jr_onnx.records import dumps, loads
from jr_onnx.rewriter import rewrite
from tests.runtime.exact_nets import ExactNet, convnet
from tests.verifier.nets import network, save


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "net.onnx"
    onnx.save(convnet(), str(path))
    return path


@pytest.fixture(scope="module")
def report(original: Path) -> BenchReport:
    return benchmark(
        BenchRequest(
            original,
            3.0,
            batches=(1, 4),
            rounds=8,
            sessions=("plain", "optimised", "standard"),
            with_profile=True,
        )
    )


def test_every_form_is_measured(report: BenchReport) -> None:
    assert [case.batch for case in report.cases] == [1, 4]
    for case in report.cases:
        names = [row.variant for row in case.rows]
        assert names == ["original", "where", "thresholded", "custom", "standard", "optimised"]
        assert case.missing == {}
        for row in case.rows:
            assert 0 < row.median_ms <= row.p99_ms
            assert row.ratio_low <= row.ratio <= row.ratio_high
            assert row.open_ms is not None
            assert row.open_ms > 0
            assert row.memory_bytes is not None
            assert row.memory_bytes > 100_000
        assert case.base == "original"
        assert case.row("original").ratio == case.row("original").ratio_high == 1
    assert report.sites == 6
    assert report.environment.cores >= 1


def test_the_profile_shows_what_each_form_adds(report: BenchReport) -> None:
    profile = {name: {item.op_type: item for item in items} for name, items in report.cases[0].profile.items()}
    assert profile["where"]["Where"].calls == 6
    assert profile["optimised"]["JumpRelu"].calls == 6
    # Without the op library the Gemm's activation stays fused, as ThresholdedRelu.
    assert profile["standard"]["ThresholdedRelu"].calls == 5
    assert "JumpRelu" not in profile["original"]
    assert profile["optimised"]["Conv"].calls == profile["original"]["Conv"].calls
    reorders = {name: found["ReorderOutput"].calls for name, found in profile.items()}
    assert reorders["optimised"] == reorders["original"] < reorders["where"]


def test_options_of_a_provider_are_for_what_is_compared() -> None:
    wanted = ("default", "both")
    names = {
        kind: [item.name for item in Variant("it", kind, Path("m.onnx")).on("cuda", wanted)]
        for kind in get_args(SessionKind)
    }
    assert names == {
        "onnxruntime": ["it", "it, both"],
        "plain": ["it"],
        "optimised": ["it", "it, both"],
        "standard": ["it"],
    }
    assert [item.name for item in Variant("it", "onnxruntime", Path("m.onnx")).on("cpu", wanted)] == ["it"]


def test_the_report_survives_json(report: BenchReport) -> None:
    assert loads(BenchReport, dumps(report)) == report


def test_a_retrofit_keeps_its_plan(original: Path, tmp_path: Path) -> None:
    written, _ = rewrite(str(original), {"^Relu_1$": 2.0}, output=str(tmp_path / "one.onnx"))
    found = benchmark(BenchRequest(written, rounds=2, lowerings=("where",), with_footprint=False))
    assert found.sites == 1
    assert found.kappa is None
    assert [row.variant for row in found.cases[0].rows] == ["original", "where", "optimised"]
    assert found.cases[0].rows[0].memory_bytes is None


def test_external_data_is_found(original: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(str(original)), str(tmp_path / "net.onnx"), save_as_external_data=True, size_threshold=64)
    found = benchmark(BenchRequest(tmp_path / "net.onnx", 3.0, rounds=2, lowerings=("thresholded",)))
    assert [row.variant for row in found.cases[0].rows] == ["original", "thresholded", "optimised"]


@pytest.mark.parametrize("name", ["file", "allow_pickle"])
def test_an_input_may_have_any_name(original: Path, tmp_path: Path, name: str) -> None:
    """Inputs reach the process that measures a footprint in a file of NumPy, whose writer has parameters too."""
    model = onnx.load(str(original))
    old = model.graph.input[0].name
    model.graph.input[0].name = name
    for node in model.graph.node:
        node.input[:] = [name if value == old else value for value in node.input]
    onnx.save(model, str(tmp_path / "net.onnx"))
    found = benchmark(BenchRequest(tmp_path / "net.onnx", 3.0, rounds=1, lowerings=("where",), sessions=("plain",)))
    assert all(row.memory_bytes for row in found.cases[0].rows)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    """A folded site keeps the optimised session from being sure; the lowerings are measured all the same."""
    net = ExactNet(13)
    folded = net.relu(net.weight((3, 1, 1), 1.0))
    onnx.save(net.model([net.add("Add", [net.relu("x"), folded])], ["N", 3, 8, 8]), str(tmp_path / "net.onnx"))
    found = benchmark(BenchRequest(tmp_path / "net.onnx", 0.5, rounds=2, with_footprint=False))
    assert "stands in the graph 0 times" in found.cases[0].missing["optimised"]
    assert len(found.cases[0].rows) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kappa": None}, "is not a retrofit, and no kappa was given"),
        ({"batches": (0,)}, "the batch size is"),
        ({"threads": ()}, "the number of threads is"),
        ({"sessions": ("fast",)}, "the session is fast, expected plain, optimised, standard"),
        ({"providers": ("tpu",)}, "the provider is tpu, expected cpu, cuda"),
        ({"lowerings": ()}, "the lowering is missing"),
        ({"cuda_options": ("default", "fast")}, "the CUDA option is fast, expected default, fuse_conv_bias"),
        ({"cuda_options": ("graph",)}, "the CUDA options are graph, expected default among them"),
        ({"rounds": 0}, "0 rounds"),
        ({"clock": "sun"}, "the clock is 'sun', expected wall, cpu"),
        ({"clock": "cpu", "threads": (1, 2)}, "the cpu clock sees the calling thread only"),
        ({"shapes": (("x", (1, 4, 8, 8)),)}, "no input with batch size 1 fits the model"),
        ({"shapes": (("z", (1,)),)}, "z"),
    ],
)
def test_wrong_requests_are_refused(original: Path, changes: dict[str, Any], words: str) -> None:
    base: dict[str, Any] = {"kappa": 3.0, "rounds": 1, "lowerings": ("where",), "with_footprint": False}
    with pytest.raises(InputError, match=words):
        benchmark(BenchRequest(original, **{**base, **changes}))


def test_a_provider_that_is_not_there_is_an_error(original: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime lists CUDA")
    with pytest.raises(InputError, match="ONNX Runtime has no provider 'CUDAExecution"):
        benchmark(BenchRequest(original, 3.0, providers=("cuda",), rounds=1))


def test_a_provider_that_is_not_there_may_be_done_without(original: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime lists CUDA")
    request = BenchRequest(
        original, 3.0, lowerings=("where",), providers=("cuda",), rounds=1, with_footprint=False, allow_fallback=True
    )
    report = benchmark(request)
    assert [case.provider for case in report.cases] == ["cpu"]
    assert "has no provider 'CUDAExecutionProvider' here" in report.warnings[0]
    assert loads(BenchReport, dumps(report)) == report


def test_a_batch_that_a_fixed_model_does_not_take_is_refused(tmp_path: Path) -> None:
    """Else a table would say batch 4 of what was measured with batch 1."""
    model = network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path = save(model, tmp_path)
    request = BenchRequest(path, 0.5, (4,), rounds=1, lowerings=("where",), with_footprint=False)
    with pytest.raises(InputError, match="take no batch of 4: their first axes are fixed at 1"):
        benchmark(request)
    assert benchmark(dataclasses.replace(request, batches=(1,))).cases[0].batch == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        benchmark(BenchRequest(tmp_path / "none.onnx", 0.5))


def test_profiles_are_summed_by_run() -> None:
    def kernel(name: str, micros: int) -> dict[str, Any]:
        return {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "dur": micros,
            "args": {"op_name": name, "output_size": "8"},
        }

    events = [
        {"cat": "Session", "name": "model_loading", "dur": 5},
        kernel("Conv", 9000), {"name": "model_run"},
        kernel("Conv", 1000), kernel("Conv", 2000), kernel("Relu", 10), {"name": "model_run"},
        kernel("Conv", 1000), kernel("Conv", 4000), kernel("Relu", 30), {"name": "model_run"},
    ]  # fmt: skip
    found = summarise(events)
    assert [(item.op_type, item.calls, item.ms, item.output_bytes) for item in found] == [
        ("Conv", 2, 4.0, 16),
        ("Relu", 1, 0.02, 8),
    ]


def test_the_plot_is_drawn(report: BenchReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    plot(dataclasses.replace(report, cases=report.cases[:1]), tmp_path / "plot.svg")
    assert "</svg>" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write the plot"):
        plot(report, tmp_path / "plot.unknown")
