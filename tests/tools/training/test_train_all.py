"""The script that trains all networks in a given time, with a stand-in for the training itself."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "training" / "train_all.sh"
NAMES = {f"{name}{kind}" for name in ("alex_like", "wide_resnet", "mobilenet_v2") for kind in ("", "_robust")}
# Writes what the training would and says how it was called; wide_resnet fails.
STAND_IN = """#!/usr/bin/env bash
echo "$*"
while [ "$1" != --output ]; do shift; done
case $2 in *wide_resnet.pt) exit 1 ;; esac
echo weights > "$2"; echo record > "${2%.pt}.json"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data_batch_1.bin").touch()
    program = tmp_path / "python"
    program.write_text(STAND_IN, encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def _run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    known = {**os.environ, "PYTHON": str(folder / "python"), **environment}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=known, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_every_training_gets_its_share_of_the_time_and_what_failed_is_named(folder: Path) -> None:
    out, pack = folder / "out", folder / "pack"
    code, text = _run(folder, str(folder / "data"), str(out), "300", PACK=str(pack), TRAIN_OPTIONS="--limit 9")
    assert code == 1
    assert "wide_resnet has no weights" in text
    assert {path.stem for path in out.glob("*.pt")} == NAMES - {"wide_resnet"}
    for name in NAMES:
        said = (out / f"{name}.log").read_text(encoding="utf-8")
        assert said.startswith(f"-m tools.training.train {name.removesuffix('_robust')} ")
        assert ("--robust" in said) == name.endswith("_robust")
        assert said.endswith("--limit 9\n")
        limit = int(said.split("--time-limit ")[1].split()[0])
        assert 0 < limit <= (84 - 25 if name.startswith("alex") else 300 - 25)
    assert {path.name for path in pack.iterdir()} == {
        f"{name}.tar" for name in NAMES if "alex_like_" not in name and "v2_" not in name
    }
    with tarfile.open(pack / "alex_like.tar") as packed:
        assert len(packed.getnames()) == 6
    with tarfile.open(pack / "wide_resnet.tar") as packed:
        assert packed.getnames() == ["wide_resnet.log"]


def test_what_cannot_be_started_in_time_is_left_out(folder: Path) -> None:
    code, text = _run(folder, str(folder / "data"), str(folder / "out"), "20")
    assert code == 1
    assert text.count("is left out") == len(NAMES)
    assert text.count("has no weights") == len(NAMES)


@pytest.mark.parametrize(
    ("data", "seconds", "message"), [("data", "soon", "found 'soon' seconds"), ("none", "300", "no data_batch_1.bin")]
)
def test_mistakes_are_named(folder: Path, data: str, seconds: str, message: str) -> None:
    code, text = _run(folder, str(folder / data), str(folder / "out"), seconds)
    assert code == 2
    assert message in text
