"""The benchmark of the attacks: its judgement, and one small run of the implementations that need no peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.registry import build
from tools.bench.attacks import compare, judge

ROOT = Path(__file__).resolve().parents[3]


class Fake:
    """An implementation that answers at once."""

    def __init__(self, name: str, seconds: float, robust: float) -> None:
        self.name, self.attacks, self.batch = name, ("pgd",), {"pgd": 8}
        self.answer = {"seconds": seconds, "cpu_seconds": seconds, "robust": robust, "relative": 0.1}

    def order(self, attack: str, batch: int) -> dict[str, float]:
        assert (attack, batch) == ("pgd", 8)
        return self.answer


def compared(robust: float) -> dict[str, Any]:
    workers: Any = [Fake("ours", 1.0, robust), Fake("literal", 3.0, 0.2), Fake("foolbox", 2.5, 0.3)]
    return compare(workers, "pgd", 3)


def test_the_ratio_is_to_the_fastest_other() -> None:
    found = compared(0.2)
    assert found["fastest_other"] == "foolbox"
    assert found["ratio"] == 2.5


def test_speed_without_success_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge([compared(0.2)], 2.0)
    assert not judge([compared(0.2)], 2.6)
    assert not judge([compared(0.25)], 2.0)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "pgd: 2.50x, bar 2x: met"
    assert told[2].endswith("missed, and finds fewer adversarials than another")


def test_a_small_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, data, out = tmp_path / "weights.pt", tmp_path / "data.npz", tmp_path / "out.json"
    torch.save(build("lenet_like").state_dict(), weights)
    generator = np.random.default_rng(0)
    images = generator.random((6, 1, 28, 28), dtype=np.float32)
    images[:, :, 0, :2] = (0.0, 1.0)  # so that every batch has the range of the data, to which the paper's code clips
    np.savez(data, images=images, labels=np.arange(6))
    options = ["--attacks", "pgd,trust-region", "--steps", "2", "--trust-region-steps", "2", "--rounds", "1"]
    files = ["--weights", str(weights), "--data", f"npz:{data}", "--output", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench.attacks", *files, "--batch-sizes", "6", "--threads", "1", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert [result["attack"] for result in results] == ["pgd", "trust-region"]
    for result in results:
        ours, literal = result["rows"]["ours"], result["rows"]["literal"]
        assert ours["robust"] == literal["robust"]
        assert ours["relative"] == pytest.approx(literal["relative"], rel=1e-4)
