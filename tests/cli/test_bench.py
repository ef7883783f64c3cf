"""`jr-onnx bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from jr_onnx.bench import BenchReport
from jr_onnx.records import load_file
from tests.cli.conftest import Outcome
from tests.runtime.exact_nets import convnet


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(convnet(), str(tmp_path / "net.onnx"))
    return tmp_path / "net.onnx"


def test_table_json_and_profile(jr: Callable[..., Outcome], net: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = jr(
        "bench", net, "--kappa", 3, "--batch", "1,2", "--rounds", 3, "--no-footprint", "--profile", "-o", out
    )  # fmt: skip
    assert done.exit_code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("net.onnx: 6 sites, ")
    assert "batch 1, 1 thread, cpu, 3 rounds, wall clock" in done.out
    assert "batch 2, 1 thread, cpu, 3 rounds, wall clock" in done.out
    assert sum(line.startswith("optimised") for line in lines) == 2
    assert sum(line.startswith("JumpRelu") for line in lines) == 2
    report = load_file(BenchReport, out)
    assert [case.batch for case in report.cases] == [1, 2]
    assert f"result -> {out}" in done.err


def test_json_on_stdout(jr: Callable[..., Outcome], net: Path) -> None:
    done = jr("bench", net, "--kappa", 3, "--lowering", "where", "--rounds", 2, "--no-footprint", "--json")
    value = json.loads(done.out)
    assert value["schema"] == "jr_onnx.bench/1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch", "one"), "expected whole numbers separated by commas"),
        (("--session", "fast"), "the session is fast"),
        ((), "is not a retrofit, and no kappa was given"),
    ],
)
def test_mistakes(jr: Callable[..., Outcome], net: Path, words: tuple[str, ...], message: str) -> None:
    done = jr("bench", net, *words)
    assert done.exit_code == 2
    assert message in done.err
    assert done.out == ""
