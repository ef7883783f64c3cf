"""Tables fit their place and lose nothing; what is printed cannot steer a terminal."""

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
from jr_onnx.cli.output import WIDTH, json_text, print_row, print_table, printable
from jr_onnx.errors import InputError, PrintableFormatter
from tests.cli.conftest import small_model

LONG = "a reason " * 60


@pytest.mark.parametrize("columns", [None, "20", "300"])
def test_a_table_in_a_pipe_fits_100_columns_and_loses_nothing(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    print_table(("name", "number", "why"), [("[bold]x" * 6, "1.25", LONG), ("y", "2", "")], title=f"of: {LONG}")
    lines = capsys.readouterr().out.splitlines()
    assert 80 < max(map(len, lines)) <= WIDTH
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("name")) :]
    assert table[0] == "name" + " " * 40 + "number"
    assert table[1] == "[bold]x" * 6 + "  1.25"
    assert all(line.startswith("    ") for line in table[2:-1]), "the reason stands below the row"
    assert sum(line.split().count("reason") for line in table) == 60
    assert table[-1] == "y" + " " * 43 + "2"


def test_columns_that_do_not_fit_are_wrapped_and_the_name_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("site", "why", "n"), [("x" * 55, LONG, "1.25")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == WIDTH
    assert lines[1].startswith("x" * 55 + "  a reason a reason")
    assert lines[1].endswith("  1.25")
    assert sum(line.split().count("reason") for line in lines) == 60


def test_a_narrow_table_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("1", "22"), ("333", "4")])
    assert capsys.readouterr().out == "a    b\n1    22\n333  4\n"


def test_a_name_longer_than_the_table_is_folded_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "".join(str(number) for number in range(200))
    print_table(("site", "n"), [(name, "1")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert name in "".join(line.split(" ")[0] for line in lines[1:])


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
    print_row("a\tb", 3, "c\x1b[2J")
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
    """Its id is not a valid regular expression either, and verify and the filters must take it for an id."""
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
