"""`jr-onnx doctor`: what is installed, what works, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from jr_onnx.runtime.doctor import Report
    from jr_onnx.runtime.ops_library import LibraryStatus


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(as_json: bool) -> None:
    """Show versions, providers, what is built and what is missing, and what to do about it.

    A provider counts as working only if a session created on it really ran a node on it; an op library only if a
    session ran the operator from it and the result was right.
    """
    from jr_onnx.records import dumps
    from jr_onnx.runtime.doctor import examine

    report = examine()
    if as_json:
        click.echo(dumps(report))
        return
    from rich.console import Console

    console = Console()
    for table in _tables(report):
        console.print(table)
    for line in report.advice or ("Everything is in place.",):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tables(report: Report) -> list[Table]:
    versions = [("python", f"{report.python} ({report.machine})")]
    versions += [(item.name, item.version or "not installed") for item in report.versions]
    extras = [
        (item.name, f"missing: {', '.join(item.missing)}" if item.missing else "installed") for item in report.extras
    ]
    providers = [(item.name, "works" if item.works else f"does not work: {item.reason}") for item in report.providers]
    libraries = [(item.target, _library_state(item), item.path) for item in report.libraries]
    return [
        _table("Versions", ("package", "version"), versions),
        _table("Extras", ("extra", "state"), extras),
        _table("Execution providers", ("provider", "state"), providers),
        _table("Op libraries", ("target", "state", "file"), libraries),
    ]


def _library_state(library: LibraryStatus) -> str:
    if library.loadable:
        return "works"
    return f"{'does not work' if library.built else 'not built'}: {library.reason}"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in an error message are no markup
    return table
