"""The root command: light, lists everything, one line per error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jr_onnx.cli import app as app_module
from jr_onnx.cli.app import COMMANDS
from jr_onnx.errors import EXIT_CODES, JrError
from jr_onnx.rewriter import rewrite
from jr_onnx.verifier.inputs import InputsError

ROOT = Path(__file__).resolve().parents[2]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from jr_onnx.cli.app import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'numpy', 'onnx', 'rich', 'torch', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize(
    ("missing", "extra", "words"),
    [
        ("torch", "attack", ["attack", "model.onnx", "--kappa", "1"]),
        ("torch", "attack", ["attack", "model.onnx", "--kappa", "1", "--black-box"]),
        ("torch", "attack", ["tune", "model.onnx"]),
        ("torch", "attack", ["detect", "model.onnx", "--kappa", "1"]),
        ("torch", "attack", ["verify", "model.onnx", "--kappa", "1", "--torch", "a:b"]),
        ("matplotlib", "report", ["tune", "model.onnx", "--plot", "x.png"]),
        ("matplotlib", "report", ["bench", "model.onnx", "--kappa", "1", "--plot", "x.png"]),
        ("onnxruntime", "cpu", ["verify", "model.onnx", "--kappa", "1"]),
        ("onnxruntime", "cpu", ["bench", "model.onnx", "--kappa", "1"]),
        ("onnxruntime", "cpu", ["optimize", "jr.onnx"]),
        ("onnxruntime", "cpu", ["attack", "model.onnx", "--kappa", "1", "--limit", "2"]),
    ],
)
def test_a_missing_extra_is_named(missing: str, extra: str, words: list[str], tmp_path: Path) -> None:
    shutil.copy(ROOT / "models" / "exported" / "digits_mlp.onnx", tmp_path / "model.onnx")
    rewrite(tmp_path / "model.onnx", 0.5, output=tmp_path / "jr.onnx")
    code = "import sys; sys.modules[sys.argv[1]] = None; from jr_onnx.cli.app import run; sys.exit(run(sys.argv[2:]))"
    command = [sys.executable, "-c", code, missing, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert f"pip install 'jr-onnx[{extra}]'" in done.stderr
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1


def test_version(jr) -> None:
    assert jr("--version").out.startswith("jr-onnx, version ")


def test_unknown_command_is_a_usage_error(jr) -> None:
    outcome = jr("retrofit")
    assert outcome.exit_code == 2
    assert "No such command 'retrofit'" in outcome.err


def test_help_groups_the_commands_and_lists_the_exit_codes(jr) -> None:
    lines = jr("--help").out.splitlines()
    for group, commands in app_module.GROUPS.items():
        start = lines.index(f"{group}:")
        listed = [line.split()[0] for line in lines[start + 1 :] if line.startswith("  ") and line[2] != " "]
        assert listed[: len(commands)] == list(commands)
    shown = lines[lines.index("Exit codes:") + 1 :]
    assert [int(line.split()[0]) for line in shown if line[2] != " "] == list(EXIT_CODES)


def test_every_exit_code_of_an_error_has_a_meaning() -> None:
    found, todo = set(), [JrError]
    while todo:
        kind = todo.pop()
        found.add(kind.exit_code)
        todo += kind.__subclasses__()
    assert found <= set(EXIT_CODES)
    assert InputsError.exit_code in found


def failing(error: Exception) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (JrError("the thing is bad", hint="Do this"), 1, "jr-onnx: the thing is bad. Do this\n"),
        (JrError("two\nlines"), 1, "jr-onnx: two lines\n"),
        (MemoryError(), 71, "jr-onnx: out of memory\n"),
        (OSError(28, "No space left on device", "x.onnx"), 74, "jr-onnx: x.onnx: No space left on device\n"),
        (BrokenPipeError(32, "Broken pipe"), 74, "jr-onnx: input or output: a pipe to another process broke\n"),
        (KeyboardInterrupt(), 130, "\njr-onnx: interrupted\n"),
    ],
)
def test_errors_are_one_line(jr, monkeypatch, error: Exception, exit_code: int, text: str) -> None:
    monkeypatch.setattr(app_module.LazyGroup, "get_command", lambda *_: failing(error))
    outcome = jr("inspect")
    assert (outcome.exit_code, outcome.err, outcome.out) == (exit_code, text, "")


def test_a_defect_asks_for_a_report_and_debug_shows_the_traceback(jr, monkeypatch) -> None:
    monkeypatch.setattr(app_module.LazyGroup, "get_command", lambda *_: failing(ZeroDivisionError("oops")))
    outcome = jr("inspect")
    assert outcome.exit_code == 70
    assert outcome.err.count("\n") == 1
    assert "internal error: ZeroDivisionError: oops" in outcome.err
    assert "Traceback" in jr("--debug", "inspect").err
