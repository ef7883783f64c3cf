"""How commands speak: data to stdout as a table or JSON, messages to stderr."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from jr_onnx.errors import printable, printable_lines
from jr_onnx.records import Record

_ANY_WIDTH = 100_000

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")


def print_json(record: Record) -> None:
    """Print a record as indented JSON on stdout."""
    print_json_object(record.to_json())


def print_json_text(text: str) -> None:
    """Print JSON on stdout, harmless for a terminal."""
    click.echo(json_text(text))


def print_json_of(records: Mapping[str, Record]) -> None:
    """Print several records as one JSON object, each with its own schema."""
    print_json_object({name: record.to_json() for name, record in records.items()})


def print_json_object(content: Mapping[str, object]) -> None:
    """Print what JSON can hold as an indented object on stdout."""
    print_json_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on stdout: fitted to a terminal, and in a pipe or a file with as wide lines as it takes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text: brackets in a name are no markup
    if title:
        tell(title)  # as a line of its own, for rich breaks the title of a table at the table's width
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=_ANY_WIDTH, file=io.StringIO(), force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def next_step(*words: object) -> str:
    """Return the line that tells which command of jr-onnx comes next, ready to be copied into a shell."""
    return f"next: jr-onnx {shlex.join(str(word) for word in words)}"


def counted(number: int, noun: str) -> str:
    """Return "1 site" or "4 sites"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def json_text(text: str) -> str:
    r"""Return JSON with everything unprintable in its strings as \u escapes, which read back as they were."""
    if all(char.isprintable() or char == "\n" for char in text):
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def tell_row(*cells: object) -> None:
    """Print a line of cells with tabs between, for other programs to read; no cell can bring a tab of its own."""
    click.echo("\t".join(printable(str(cell)) for cell in cells))


def say(text: str) -> None:
    """Print a message on stderr."""
    tell(text, err=True)


def tell(text: str, *, err: bool = False) -> None:
    """Print lines of a result on stdout, made harmless for a terminal."""
    click.echo(printable_lines(text), err=err)
