"""Output of the commands: data on stdout as a table or JSON, messages on stderr."""

from __future__ import annotations

import io
import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from jr_onnx.errors import printable, printable_lines
from jr_onnx.records import Record, dumps

if TYPE_CHECKING:
    from pathlib import Path

    from jr_onnx.rewriter import RewriteResult

WIDTH = 100
"""Width of a table in columns if stdout is not a terminal."""

_GAP, _INDENT, _LEAST = 2, 4, 6
_LINES_AT_ONCE = 1000
_FIRST_SHARE, _PROSE_SHARE = 0.6, 0.3

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")


def print_json(record: Record) -> None:
    """Print a record as indented JSON on stdout."""
    print_json_object(record.to_json())


def write_result(record: Record, path: Path | None) -> None:
    """Write a record as JSON to a file, if there is one, and name it.

    Raises:
        OutputError: The file cannot be written.
    """
    from jr_onnx.modelfile import atomic_write

    if path is not None:
        atomic_write(path, [(dumps(record) + "\n").encode()])
        print_message(f"result -> {path}")


def print_json_text(text: str) -> None:
    """Print JSON on stdout, safe for a terminal."""
    click.echo(json_text(text))


def print_json_of(records: Mapping[str, Record]) -> None:
    """Print several records as one JSON object, each with its own schema."""
    print_json_object({name: record.to_json() for name, record in records.items()})


def print_json_object(content: Mapping[str, object]) -> None:
    """Print a mapping of JSON values as an indented object on stdout."""
    print_json_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on stdout, at most as wide as the terminal, or as `WIDTH` in a pipe or a file.

    If it does not fit, a long last cell goes below its row; what still does not fit is wrapped inside its cell. The
    first column, which names the row, is narrowed last.
    """
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    limit = Console().width if is_terminal else WIDTH
    cells = [[printable(cell) for cell in row] for row in rows]
    below = _is_prose_last([columns, *cells], limit)
    head, shown = list(columns), cells
    if below:
        head, shown = head[:-1], [row[:-1] for row in cells]
    widths = _widths([head, *shown], limit)
    if title:  # as lines of its own: rich wraps the title of a table to the table's width
        print_lines("\n".join(textwrap.wrap(title, limit)))
    for line in _row_lines(head, widths):
        click.secho(line, bold=True) if is_terminal else click.echo(line)
    lines: list[str] = []
    for row, whole in zip(shown, cells, strict=True):
        lines.extend(_row_lines(row, widths))
        lines.extend(" " * _INDENT + line for line in (textwrap.wrap(whole[-1], limit - _INDENT) if below else ()))
        if len(lines) >= _LINES_AT_ONCE:
            click.echo("\n".join(lines))
            lines.clear()
    if lines:
        click.echo("\n".join(lines))


def _cell_length(cell: str) -> int:
    """Return how many columns of a terminal a printable cell takes."""
    if cell.isascii():
        return len(cell)
    from rich.cells import cell_len

    return cell_len(cell)


def _row_lines(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of one row, each cell wrapped to its width."""
    lengths = [_cell_length(cell) for cell in cells]
    if all(length <= width for length, width in zip(lengths, widths, strict=True)):
        # Without anything to wrap, a table of a hundred thousand rows needs no layout by rich.
        padded = (cell + " " * (width - length) for cell, length, width in zip(cells, lengths, widths, strict=True))
        return [(" " * _GAP).join(padded).rstrip()]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for width in widths:
        table.add_column(overflow="fold", width=width)
    table.add_row(*(Text(cell) for cell in cells))  # Text: brackets in a name are not markup
    console = Console(width=sum(widths) + _GAP * len(widths), file=io.StringIO(), force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _is_prose_last(rows: Sequence[Sequence[str]], limit: int) -> bool:
    """Return whether a table is too wide because of its last column, which then goes below the rows."""
    widths = [max(map(_cell_length, column)) for column in zip(*rows, strict=True)]
    return len(widths) > 1 and sum(widths) + _GAP * (len(widths) - 1) > limit and widths[-1] > limit * _PROSE_SHARE


def _widths(rows: Sequence[Sequence[str]], limit: int) -> list[int]:
    """Return the width of every column: what it needs, or less, the widest being narrowed first."""
    widths = [min(max(map(_cell_length, column)), limit) for column in zip(*rows, strict=True)]
    shrinking = list(range(1, len(widths))) if widths[0] <= limit * _FIRST_SHARE else list(range(len(widths)))
    while sum(widths) + _GAP * (len(widths) - 1) > limit:
        widest = max(shrinking, key=lambda place: widths[place], default=0)
        if not shrinking or widths[widest] <= _LEAST:
            if len(shrinking) == len(widths):
                break
            shrinking = list(range(len(widths)))
            continue
        widths[widest] -= 1
    return widths


def command_line() -> str:
    """Return the command line that is running, ready to be copied into a shell."""
    return shlex.join(["jr-onnx", *click.get_current_context().obj])


def next_step(*words: object) -> str:
    """Return the line that suggests the next command, ready to be copied into a shell."""
    return f"next: jr-onnx {shlex.join(str(word) for word in words)}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 site" or "4 sites"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def json_text(text: str) -> str:
    r"""Return JSON with everything unprintable in its strings as \u escapes, which parse to the same text."""
    if all(char.isprintable() or char == "\n" for char in text):
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def print_row(*cells: object) -> None:
    """Print a line of cells separated by tabs, for other programs to read; tabs within cells are escaped."""
    click.echo("\t".join(printable(str(cell)) for cell in cells))


def print_message(text: str) -> None:
    """Print a message on stderr."""
    click.echo(printable_lines(text), err=True)


def print_lines(text: str) -> None:
    """Print lines of a result on stdout, safe for a terminal."""
    click.echo(printable_lines(text))


def print_rewrite(result: RewriteResult, show: Callable[[RewriteResult], None], *, as_json: bool) -> None:
    """Print what `rewrite` or `fuse` did: as JSON, or with `show` and notes unless there is a diff; then warnings."""
    if result.diff is not None:
        print_lines(result.diff)
    if as_json:
        print_json(result)
    elif result.diff is None:
        show(result)
        _print_notes(result)
    for warning in result.warnings:
        print_message(f"warning: {warning}")


def _print_notes(result: RewriteResult) -> None:
    """Print what changed besides the sites, and what onnx.checker says."""
    for change in result.changes:
        print_lines(f"also changed: {change}")
    if result.proof is not None:
        print_lines(f"the conversion is {result.proof}")
    if result.external_data != "none":
        print_lines(f"external data: {result.external_data}")
    if result.checker_problem is not None:
        print_lines(f"onnx.checker complains of the source and the result alike: {result.checker_problem}")
