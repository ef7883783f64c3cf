"""Tables in a pipe or a log keep their rows on one line, whatever the terminal is said to be."""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
from pathlib import Path

import onnx
import pytest

import jr_onnx.cli
from jr_onnx.cli.output import json_text, print_table, printable, tell_row
from jr_onnx.errors import InputError, PrintableFormatter
from tests.cli.conftest import small_model

LONG = "a reason " * 60


@pytest.mark.parametrize("columns", [None, "20"])
def test_a_table_in_a_pipe_is_not_wrapped(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    print_table(("name", "why"), [("[bold]x", LONG), ("y", "")], title=f"of: {LONG}")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"of: {LONG}", "name     why", f"[bold]x  {LONG.strip()}", "y"]


def test_a_table_on_a_terminal_is_fitted_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_table(("name", "why"), [("x", LONG)])
    printed = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1/Relu \u2713 \u043c\u043e\u0434", "conv1/Relu \u2713 \u043c\u043e\u0434"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\tc\x00", r"a\nb\tc\x00"),
        ("a\u202eb\x9b", r"a\u202eb\x9b"),
        ("\udce9", r"\udce9"),
    ],
)
def test_names_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_is_harmless_too_and_reads_back_as_it_was() -> None:
    value = {"name": "a\x1b[2J\x9b\u202e\x7f\n", "known": "\u2713 \U0001f600"}
    shown = json_text(json.dumps(value, indent=2, ensure_ascii=False))
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\u2713" in shown
    assert json.loads(shown) == value


def test_a_cell_brings_no_tab_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    tell_row("a\tb", 3, "c\x1b[2J")
    assert capsys.readouterr().out == "a\\tb\t3\tc\\x1b[2J\n"


def test_errors_and_log_lines_are_harmless() -> None:
    assert str(InputError("x\x1b[2J", hint="y\x9b")) == r"x\x1b[2J. y\x9b"
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "%s", ("x\x1b]0;owned\x07",), None)
    assert PrintableFormatter("%(message)s").format(record) == r"x\x1b]0;owned\x07"


def test_commands_print_through_what_makes_text_harmless() -> None:
    """Anything else could carry a word of somebody's file to the terminal as it is."""
    folder = Path(jr_onnx.cli.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or path.name == "output.py":
                continue
            called = ast.unparse(node.func)
            raw = called in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write")
            blank = not node.args
            harmless = bool(node.args) and ast.unparse(node.args[0]).startswith("printable_lines(")
            assert not raw or blank or harmless, f"{path.name}:{node.lineno} prints by {called}"


def test_a_hostile_name_is_shown_and_used_as_it_is(jr, tmp_path: Path) -> None:
    """Its id is no regular expression either, and verify and the filters must take it for an id."""
    name = "bad\n[name\x1b[31m"
    proto = small_model()
    proto.graph.node[1].name = name
    model = tmp_path / "net.onnx"
    onnx.save(proto, model)
    for words in (
        ["inspect", model],
        ["rewrite", model, "--kappa", 1, "--include", name],
        ["verify", tmp_path / "net.jr.onnx", model, "--samples", 1],
        ["inspect", tmp_path / "net.jr.onnx"],
    ):
        outcome = jr(*words)
        assert outcome.exit_code == 0, outcome.err
        assert "\x1b" not in outcome.out + outcome.err
    assert r"bad\n[name\x1b[31m" in outcome.out
    failed = jr("rewrite", model, "--kappa", 1e300, "-o", tmp_path / "x.onnx")
    assert failed.exit_code == 2
    assert "\x1b" not in failed.err
