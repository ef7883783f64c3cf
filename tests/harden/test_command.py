"""The command on the embedded digits: what it prints, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.cli.app import run
from jr_onnx.data import load

DIGITS = str(Path(__file__).resolve().parents[2] / "models" / "exported" / "digits_mlp.onnx")
FAST = ["--epochs", "2", "--steps", "3", "--limit", "400", "--eps", "0.1"]


def test_the_digits_are_hardened_evaluated_and_recommended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "hard.onnx"
    assert (
        run(
            ["harden", DIGITS, "--eps", "0.1", "--epochs", "15", "--rate", "0.1", "--evaluate", "40", "-o", str(output)]
        )
        == 0
    )
    shown = capfd.readouterr()
    assert "recommendation: deploy the hardened model (hard.onnx)" in shown.out
    assert "epoch 15: validation accuracy" in shown.err
    assert (tmp_path / "hard.attack" / "run.json").exists()
    assert run(["restore", str(output)]) == 2
    assert "jr-onnx harden trained" in capfd.readouterr().err
    assert run(["harden", DIGITS, *FAST, "-o", str(output)]) == 2
    assert "exists" in capfd.readouterr().err


def test_the_jump_is_judged_against_the_same_weights_without_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "hard.onnx"
    arguments = ["--kappa", "0.2", "--evaluate", "4", "--json", "-o", str(output)]
    assert run(["harden", DIGITS, *FAST, *arguments]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found["contest"]["evaluations"]) == {"hardened", "hardened with jump"}
    assert found["contest"]["chosen"] in {"original", "hardened", "hardened with jump"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluation", DIGITS], "Choose another --evaluation"),
        (["--eps", "8"], "the linf budget is 8"),
        (["--freeze", "."], "leave none of the"),
        (["--learn-kappa", "per-site"], "none is given"),
        (["--data", "mnist:nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["harden", DIGITS, *arguments, "-o", str(tmp_path / "hard.onnx")]) in (2, 4)
    shown = capfd.readouterr().err.strip().splitlines()
    assert message in shown[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_goes_on_to_the_same_file(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        words = ["harden", DIGITS, *FAST, "--epochs", "4", "--evaluate", "0", "-o", str(tmp_path / name)]
        return subprocess.Popen([sys.executable, "-m", "jr_onnx", *words], stderr=subprocess.PIPE)

    whole = start("whole.onnx")
    killed = start("killed.onnx")
    state = tmp_path / ".killed.onnx.training"
    while not state.exists():  # an epoch is done
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate(timeout=600)
    assert not (tmp_path / "killed.onnx").exists()
    again = start("killed.onnx")
    _, after = again.communicate(timeout=600)
    whole.communicate(timeout=600)
    assert (again.returncode, whole.returncode) == (0, 0)
    assert b"epoch 1:" not in after
    assert (tmp_path / "killed.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not state.exists()


def test_images_without_labels_are_enough(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = {f"x_{split}": load("digits", split=split).images for split in ("train", "test")}
    np.savez(tmp_path / "blind.npz", **parts)
    arguments = ["--data", f"npz:{tmp_path / 'blind.npz'}", "--evaluate", "5", "-o", str(tmp_path / "hard.onnx")]
    assert run(["harden", DIGITS, *FAST, *arguments]) == 2
    assert "--labels-from model" in capfd.readouterr().err
    assert run(["harden", DIGITS, *FAST, *arguments, "--labels-from", "model", "--json"]) == 0
    shown = capfd.readouterr()
    assert "has no labels: accuracy is agreement with the answers of digits_mlp.onnx" in shown.err
    original = json.loads(shown.out)["contest"]["evaluations"]["hardened"]["models"][0]
    assert original["clean"]["value"] == 1.0


def test_an_interrupted_evaluation_goes_on_and_a_folder_in_the_way_is_named_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, folder = tmp_path / "hard.onnx", tmp_path / "hard.attack"
    arguments = ["harden", DIGITS, *FAST, "--evaluate", "4", "-o", str(output)]
    assert run(arguments) == 0
    first = capfd.readouterr()
    written = output.read_bytes()
    for unit in sorted((folder / "units").iterdir())[::2]:
        unit.unlink()
    assert run(arguments) == 0
    second = capfd.readouterr()
    assert second.out == first.out
    assert "epoch 1:" not in second.err
    assert output.read_bytes() == written
    output.unlink()
    assert run(arguments) == 2
    assert "holds results of another model" in capfd.readouterr().err
    assert not output.exists()
