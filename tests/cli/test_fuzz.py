"""Damaged files and odd options through the command line: an exit code and one line, never a traceback or a hang.

The commands run in a worker process with limits on memory and time, so that a crash of a library counts as a failure
of the test and not of the run. The random numbers are fixed: a run is repeatable. `python -m tools.fuzz commands`
runs the same cases, as many as are asked for.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.cli.corpus import build
from tests.cli.mutants import mutate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "corpus"
    build(folder)
    return folder


def fuzz(corpus: Path, scratch: Path, *, seed: int, count: int, commands: tuple[str, ...] = ()) -> dict[str, int]:
    """Run the worker and return how often each exit code came."""
    words = [sys.executable, "-m", "tests.cli.fuzz_worker", str(corpus), str(scratch), str(seed), "0", str(count)]
    done = subprocess.run([*words, *commands], capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    case = scratch / "case.json"
    left = case.read_text(encoding="utf-8") if case.exists() else ""
    assert done.returncode == 0, f"{done.returncode} {left}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    codes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return codes


def test_the_rewriters_commands_meet_damaged_files_with_a_clean_word(corpus: Path, tmp_path: Path) -> None:
    codes = fuzz(corpus, tmp_path, seed=1, count=400, commands=("rewrite", "inspect", "restore", "report"))
    assert codes["0"] > 20, codes
    assert codes["2"] > 50, codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_every_command_meets_damaged_files_with_a_clean_word(seed: int, corpus: Path, tmp_path: Path) -> None:
    codes = fuzz(corpus, tmp_path, seed=seed, count=1500)
    assert codes["0"] > 20, codes
    assert codes["2"] > 50, codes


def test_mutants_of_a_model_often_parse_and_often_differ() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) { y = Relu(x) }'
    )
    data = model.SerializeToString()
    mutants = {mutate(data, data, "a.onnx", random.Random(number)) for number in range(50)}
    assert len(mutants) > 40
    parsed = 0
    for mutant in mutants:
        try:
            parsed += onnx.ModelProto.FromString(mutant).HasField("graph")
        except Exception:  # noqa: BLE001 - protobuf's error has another name in every version
            continue
    assert parsed > 20
