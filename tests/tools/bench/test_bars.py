from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jr_onnx.bench import BenchReport
from jr_onnx.records import load_file
from tools.bench import bars as bench_bars
from tools.bench.bars import BARS, BEGIN, END, BarsReport, copy_bandwidth, render, replace_figures


@pytest.fixture(scope="module")
def measured() -> BenchReport:
    return bench_bars.measure(BARS[-1], 3, with_footprint=False)


def test_one_bar_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Three rounds prove nothing about the real bar.
    monkeypatch.setattr(bench_bars, "BARS", tuple(dataclasses.replace(bar, reach=1000.0) for bar in BARS))
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", encoding="utf-8")
    words = [
        "--only",
        "mlp",
        "--rounds",
        "3",
        "--no-footprint",
        "--output",
        str(tmp_path / "bars.json"),
        "--write",
        str(page),
    ]
    assert bench_bars.main(words) == 0
    report = load_file(BarsReport, tmp_path / "bars.json")
    assert report.names == ("mlp",)
    case = report.reports[0].cases[0]
    assert [row.variant for row in case.rows] == [
        "original", "where", "thresholded", "custom", "standard", "optimised",
    ]  # fmt: skip
    assert case.clock == "cpu"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\nMeasured ")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "stale" not in text
    assert "| MLP 784-2048-2048-10, batch 64 | " in capsys.readouterr().out


def test_a_missed_bar_is_an_error(
    measured: BenchReport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_bars, "measure", lambda *_, **__: measured)
    monkeypatch.setattr(bench_bars, "BARS", tuple(dataclasses.replace(bar, reach=0.01) for bar in BARS))
    assert bench_bars.main(["--only", "mlp", "--rounds", "1", "--no-footprint"]) == 1
    assert "MLP 784-2048-2048-10, batch 64: the bar is missed" in capsys.readouterr().err


def test_an_unknown_bar_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_bars.main(["--only", "vgg"])
    assert "there is no bar 'vgg'" in capsys.readouterr().err


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for figures"):
        replace_figures("text", "figures")


def test_bandwidth_is_a_plausible_number() -> None:
    assert 0.1 < copy_bandwidth(8, 2) < 10_000


def test_the_passes_are_counted(measured: BenchReport) -> None:
    text = render(BarsReport(("mlp",), (measured,), 10.0))
    # Two layers of 64 x 2048 floats, read and written: 2 * 2 * 64 * 2048 * 4 bytes.
    assert "| MLP 784-2048-2048-10, batch 64 | 2 | " in text
    assert " % | 2.1 | " in text
