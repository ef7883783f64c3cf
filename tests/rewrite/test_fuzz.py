"""Damaged files through the command line: an exit code and one line, never a traceback, a crash or a hang.

The files are mutated in a worker process with limits on memory and time, so that a crash of a library counts as a
failure of the test and not of the run. The random numbers are fixed: a run is repeatable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 4 << 30
SECONDS_PER_FILE = 20
ALLOWED = {0, 2, 3, 4}

WORKER = Path(__file__).with_name("fuzz_worker.py")


def fuzz(paths: list[Path], folder: Path, *, seed: int, count: int) -> dict[str, int]:
    """Run the worker on mutants of the files and return how often each exit code came."""
    words = [
        sys.executable,
        "-W",
        "error",
        str(WORKER),
        str(MEMORY_BYTES),
        str(SECONDS_PER_FILE),
        str(seed),
        str(count),
    ]
    done = subprocess.run(
        [*words, str(folder), *map(str, paths)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=550
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    codes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert {int(code) for code in codes} <= ALLOWED
    return codes


def own_models(folder: Path) -> list[Path]:
    """Write the golden models, and a retrofit of each that can be retrofitted."""
    from jr_onnx.errors import JrError
    from jr_onnx.rewrite import rewrite
    from tests.rewrite.test_golden import CASES, read_case

    paths = []
    for case in CASES:
        _, model, _ = read_case(case)
        path = folder / f"{case.stem}.onnx"
        path.write_bytes(model.SerializeToString())
        paths.append(path)
        try:
            output, _ = rewrite(model, 0.06)
        except JrError:
            continue
        path = folder / f"{case.stem}.retrofit.onnx"
        path.write_bytes(output.SerializeToString())
        paths.append(path)
    return paths


def test_mutants_of_small_models_meet_a_clean_word(tmp_path: Path) -> None:
    codes = fuzz(own_models(tmp_path), tmp_path, seed=1, count=400)
    assert codes["0"] > 20, codes
    assert codes["2"] > 50, codes


def test_mutants_of_real_models_meet_a_clean_word(shared_dir: Path, tmp_path: Path) -> None:
    paths = [path for path in sorted((shared_dir / "onnx").glob("*.onnx")) if path.stat().st_size < 300_000]
    codes = fuzz(paths, tmp_path, seed=2, count=120)
    assert codes["2"] > 20, codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_many_mutants(seed: int, shared_dir: Path, tmp_path: Path) -> None:
    real = [path for path in sorted((shared_dir / "onnx").glob("*.onnx")) if path.stat().st_size < 100_000]
    fuzz([*own_models(tmp_path), *real], tmp_path, seed=seed, count=1500)
