"""`jr-onnx doctor`: what is installed, what works, what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jr_onnx.cli.command import cli_command
from jr_onnx.cli.output import json_option, print_json_text, print_lines, print_table

if TYPE_CHECKING:
    from jr_onnx.runtime.doctor import DoctorReport
    from jr_onnx.runtime.ops_library import LibraryStatus


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments and options of `jr-onnx doctor`."""

    as_json: bool


@cli_command("doctor", Arguments, examples=("jr-onnx doctor", "jr-onnx doctor --json"))
@json_option
def command(given: Arguments) -> None:
    """Show versions, providers, what is built and what is missing, and what to do about it.

    A provider counts as working only if a session really ran a node on it; an op library only if a session ran its
    operator, on the processor that it is for, and the result was right.
    """
    from jr_onnx.records import dumps
    from jr_onnx.runtime.doctor import examine

    report = examine()
    if given.as_json:
        print_json_text(dumps(report))
        return
    for title, columns, rows in _tables(report):
        print_table(columns, rows, title=title)
        click.echo()
    for line in report.advice or ("Everything is in place.",):
        print_lines(line)


def _tables(report: DoctorReport) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    versions = [("python", f"{report.python} ({report.machine})")]
    versions += [(item.name, item.version or "not installed") for item in report.versions]
    extras = [
        (item.name, f"missing: {', '.join(item.missing)}" if item.missing else "installed") for item in report.extras
    ]
    providers = [(item.name, "works" if item.works else f"does not work: {item.reason}") for item in report.providers]
    libraries = [(item.target, _library_state(item)) for item in report.libraries]
    place = f" in {Path(report.libraries[0].path).parent}" if report.libraries else ""
    return [
        ("Versions", ("package", "version"), [*versions]),
        ("Extras", ("extra", "state"), [*extras]),
        ("Execution providers", ("provider", "state"), [*providers]),
        (f"Op libraries{place}", ("target", "state"), [*libraries]),
    ]


def _library_state(library: LibraryStatus) -> str:
    if library.loadable and library.target == "cuda" and library.ran_on == "CPUExecutionProvider":
        return "loads and is right on the CPU; not run on a GPU: no CUDA provider works here"
    if library.loadable:
        return "works"
    return f"{'does not work' if library.built else 'not built'}: {library.reason}"
