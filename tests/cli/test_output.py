"""Tables in a pipe or a log keep their rows on one line, whatever the terminal is said to be."""

from __future__ import annotations

import re
import sys

import pytest

from jr_onnx.cli.output import print_table

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
