"""Damaged files and odd options through the command line: an exit code and one line, never a traceback or a hang.

The commands run in a worker process with limits on memory and time, so that a crash of a library counts as a failure
of the test and not of the run. The random numbers are fixed: a run is repeatable. `python -m tools.checks.fuzz
commands` runs the same cases, as many as are asked for.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from jr_onnx.cli.app import run
from tests.cli import fuzz_worker
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


PIPES = {
    "optimize": ["optimize", "PIPE", "-o", "out.onnx"],
    "a model": ["rewrite", "PIPE", "--kappa", "0.1"],
    "a kappa map": ["rewrite", "MODEL", "--kappa-map", "PIPE"],
    "labels": ["package", "triton", "MODEL", "-o", "out", "--labels", "PIPE"],
    "a key that signs": ["package", "triton", "MODEL", "-o", "out", "--sign", "PIPE"],
    "a key that checks": ["verify-package", "REPOSITORY", "--key", "PIPE"],
    "data": ["tune", "MODEL", "--data", "npz:PIPE"],
}


@pytest.mark.parametrize("what", PIPES)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(
    what: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    places = {
        "MODEL": corpus / "classifiers" / "digits.onnx",
        "REPOSITORY": corpus / "packages" / "repository",
        "PIPE": pipe,
    }
    words = [str(places.get(word, word)).replace("npz:PIPE", f"npz:{pipe}") for word in PIPES[what]]
    assert run(words) in (2, 7)
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jr-onnx:")]
    assert len(complaints) == 1
    assert "pipe" in complaints[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("entries", []), ("models", {}), ("suite", "\ud800"), ("samples", 0), ("entries", ["a", "a"]), ("data", 3)],
)
def test_a_run_that_cannot_be_is_refused(
    field: str, value: object, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(corpus / "results" / "run", folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**record, field: value}), encoding="utf-8")
    assert run(["report", str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_counts_beyond_any_run_are_refused(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(corpus / "results" / "run", folder)
    for path in (folder / "units").iterdir():
        unit = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**unit, "forward": [10**30] * len(unit["forward"])}), encoding="utf-8")
    assert run(["report", str(folder)]) == 2


@pytest.mark.parametrize(
    "words", [["optimize", ""], ["attack", ""], ["rewrite", "", "--kappa", "0.1"], ["inspect", "."]]
)
def test_a_path_without_a_name_is_no_model(words: list[str]) -> None:
    assert run(words) == 2


@pytest.mark.parametrize(("waited_s", "ends"), [(0.0, True), (20.0, True), (45.0, False)])
def test_the_time_that_a_command_waits_for_a_processor_is_no_hang(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, ends: bool
) -> None:
    waits, alarms = iter([1.0, 1.0 + waited_s]), list[int]()
    monkeypatch.setattr(fuzz_worker, "_waited_s", lambda: next(waits))
    monkeypatch.setattr(fuzz_worker.signal, "alarm", alarms.append)
    patience = fuzz_worker.Patience()
    if ends:
        with pytest.raises(SystemExit, match="took too long"):
            patience()
    else:
        patience()
    assert alarms == ([] if ends else [fuzz_worker.SECONDS_PER_CASE])
