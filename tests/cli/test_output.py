"""Tables in a pipe or a log keep their rows on one line, whatever the terminal is said to be."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import onnx
import pytest

from jr_onnx.cli.output import print_table, printable
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
