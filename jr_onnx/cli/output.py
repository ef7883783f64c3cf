"""How commands speak: data to stdout as a table or JSON, messages to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import click

from jr_onnx.records import Record

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")


def print_json(record: Record) -> None:
    """Print a record as indented JSON on stdout."""
    click.echo(json.dumps(record.to_json(), indent=2, ensure_ascii=False, allow_nan=False))


def print_json_of(records: Mapping[str, Record]) -> None:
    """Print several records as one JSON object, each with its own schema."""
    content = {name: record.to_json() for name, record in records.items()}
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on stdout: rich boxes on a terminal, plain columns of any width in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if _is_terminal() else 10_000)
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def say(text: str) -> None:
    """Print a message on stderr."""
    click.echo(text, err=True)


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
