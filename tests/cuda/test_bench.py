"""`bench --provider cuda` on the fake runtime: every form opens and runs with every option; no time counts."""

from __future__ import annotations

import ctypes
from pathlib import Path

import onnx

from jr_onnx.bench import BenchReport, BenchRequest, benchmark
from jr_onnx.records import dumps, loads
from jr_onnx.runtime.providers import CUDA_OPTIONS
from tests.runtime.exact_nets import KAPPA, convnet


def _bench(folder: Path, *, options: tuple[str, ...], footprint: bool = False) -> BenchReport:
    path = folder / "net.onnx"
    onnx.save(convnet(), str(path))
    request = BenchRequest(
        path, KAPPA, batches=(1, 4), providers=("cuda",), rounds=2, with_footprint=footprint, with_profile=True,
        cuda_options=options,
    )  # fmt: skip
    return benchmark(request)


def test_every_form_with_every_option(fake: ctypes.CDLL, tmp_path: Path) -> None:
    report = _bench(tmp_path, options=tuple(CUDA_OPTIONS))
    assert loads(BenchReport, dumps(report)) == report
    compared = [
        f"{name}{more}"
        for name in ("original", "optimised")
        for more in ("", *(f", {option}" for option in CUDA_OPTIONS if option != "default"))
    ]
    for case in report.cases:
        assert case.missing == {}
        assert {row.variant for row in case.rows} == {*compared, "where", "thresholded", "custom"}
        assert case.base.startswith("original")
        assert case.row(case.base).ratio == 1
        originals = [row.median_ms for row in case.rows if row.variant.startswith("original")]
        assert case.row(case.base).median_ms == min(originals)


def test_the_sessions_are_those_that_the_options_ask_for(fake: ctypes.CDLL, tmp_path: Path) -> None:
    """The profile tells: the jumps take the biases along, in either layout."""
    (case, _) = _bench(tmp_path, options=("default", "prefer_nhwc"), footprint=True).cases
    calls = {name: {item.op_type: item.calls for item in items} for name, items in case.profile.items()}
    assert calls["optimised"]["BiasJumpRelu"] == 5
    assert calls["optimised, prefer_nhwc"]["BiasJumpRelu"] == 5
    assert "Transpose" in calls["optimised, prefer_nhwc"]
    assert all(row.open_ms is not None and row.open_ms > 0 for row in case.rows)
