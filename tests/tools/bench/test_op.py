"""The benchmark of the op runs, measures every subject at every size, and writes what it shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.errors import OpLibraryError
from jr_onnx.records import load_file
from jr_onnx.runtime import library_path
from tools.bench import op as bench_op
from tools.bench.op import OpBench, measure


@pytest.fixture(autouse=True)
def _library() -> None:
    try:
        library_path("cpu")
    except OpLibraryError as error:
        pytest.skip(error.message)


@pytest.mark.parametrize(
    ("threads", "subjects"),
    [
        (1, ["Relu", "JumpRelu", "ThresholdedRelu", "memcpy"]),
        (2, [bench_op.ALONE, bench_op.PARALLEL, "Relu"]),
    ],
)
def test_it_measures_every_subject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threads: int, subjects: list[str]
) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--threads", str(threads), "--rounds", "1", "--sizes", "262144", "524288", "--output", str(path)]
    bench_op.main(arguments)
    bench = load_file(OpBench, path)
    assert bench.threads == threads
    expected = [(name, size) for size in (262144, 524288) for name in subjects]
    assert [(figure.subject, figure.size_bytes) for figure in bench.figures] == expected
    assert "512 KiB" in capsys.readouterr().out
    assert "JR_ONNX_PARALLEL_BYTES" not in os.environ


def test_the_figures_are_medians_over_the_rounds_after_the_first() -> None:
    times = {"one": iter([9.0, 1.0, 2.0, 6.0]), "two": iter([9.0, 4.0, 4.0, 6.0])}
    timers: Any = {name: values.__next__ for name, values in times.items()}
    one, two = measure(timers, 10**9, 3)
    assert (one.node_us, one.ratio) == (2e6, 1.0)
    assert (two.node_us, two.ratio) == (4e6, 2.0)  # the median of 4/1, 4/2 and 6/6
    assert one.gb_per_s == 1.0  # 10^9 bytes read and as many written in 2 s
    assert one.low_us == pytest.approx(1.2e6)  # the lowest tenth of 1, 2, 6: 1 + 0.2 of the way to 2
