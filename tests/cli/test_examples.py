"""The examples at the end of every command's help run as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import onnx
import pytest

from tests.cli.commands import LEAVES
from tests.cli.conftest import Outcome, autoencoder

MODEL = Path(__file__).resolve().parents[2] / "models" / "exported" / "digits_cnn.onnx"
EXAMPLES = [(name, example) for name, command in LEAVES.items() for example in command.examples]
# What an example takes for granted -> the example that makes it.
MAKERS = {
    "model.jr.onnx": "jr-onnx rewrite model.onnx --kappa 0.06",
    "repository": "jr-onnx package triton model.jr.onnx -o repository --name digits",
    "attacks": "jr-onnx attack model.onnx --kappa 0.5 --black-box --limit 4 -o attacks",
    "tune.json": "jr-onnx tune model.onnx --grid 0.1,0.5 --limit 20 --steps 5 --result tune.json",
}
_NEEDS = {
    "attack": "torch",
    "report": "torch",
    "reproduce": "torch",
    "tune": "torch",
    "detect": "torch",
    "harden": "torch",
    "serve": "kserve",
}
_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which commands run; model.onnx is the digits classifier, sae.onnx a small sparse autoencoder."""
    shutil.copy(MODEL, tmp_path / "model.onnx")
    onnx.save(autoencoder(), tmp_path / "sae.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(jr: Callable[..., Outcome], words: Sequence[str]) -> None:
    """Make the files that an example names and does not make itself."""
    outputs = [path for word, path in pairwise(words) if word in ("-o", "--result")]
    for made, example in MAKERS.items():
        if made not in outputs and any(word.rpartition("=")[2] == made for word in words) and not Path(made).exists():
            run(jr, example)


def run(jr: Callable[..., Outcome], example: str) -> Outcome:
    """Run an example after what it needs."""
    program, *words = shlex.split(example)
    assert program == "jr-onnx"
    prepare(jr, words)
    return jr(*words)


def test_the_makers_are_examples() -> None:
    assert set(MAKERS.values()) <= {example for _, example in EXAMPLES}


@pytest.mark.parametrize(("name", "example"), [pair for pair in EXAMPLES if pair[0] != "serve"])
def test_an_example_runs(jr: Callable[..., Outcome], folder: Path, name: str, example: str) -> None:
    if name in _NEEDS:
        pytest.importorskip(_NEEDS[name], reason=f"{_NEEDS[name]} is not installed")
    done = run(jr, example)
    assert done.exit_code == 0, done.err
    assert done.out
    assert "old spelling" not in done.err
    words = shlex.split(example)
    for word, path in pairwise(words):
        assert word not in ("-o", "--result") or (folder / path).exists()


@pytest.mark.parametrize("example", LEAVES["serve"].examples)
def test_the_server_of_an_example_starts_and_stops(jr: Callable[..., Outcome], folder: Path, example: str) -> None:
    pytest.importorskip("kserve", reason="kserve is not installed")
    words = shlex.split(example)[1:]
    prepare(jr, words)
    # Free ports in the place of the usual ones, which another server may hold.
    command = [sys.executable, "-m", "jr_onnx", *words, "--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.alarm(_SECONDS)
    try:
        said = ""
        for line in process.stderr:
            said += line
            if "http" in line:
                break
        assert "http" in said, said
        os.kill(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 0, said + rest
    finally:
        signal.alarm(0)
        process.kill()
        process.wait()
