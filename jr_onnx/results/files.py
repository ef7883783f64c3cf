"""Recognise the result files of every command by their schema, and read them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jr_onnx import provenance
from jr_onnx.errors import InputError, blaming, require
from jr_onnx.evaluation.store import is_run
from jr_onnx.evaluation.summary import Evaluation
from jr_onnx.modelfile import load
from jr_onnx.records import LARGEST_RESULT_BYTES, Record, parse, read_regular
from jr_onnx.report import Report, Section, read, write

_KINDS = {
    "jr_onnx.tune": "tuning",
    "jr_onnx.bench": "benchmark",
    "jr_onnx.harden_result": "hardening",
    "jr_onnx.hardening": "hardening",
    "jr_onnx.reproduction": "reproduction",
}
"""Name of a schema -> the module of this package that reads such records and makes sections of them."""

_EXPECTED = (
    "the folder of jr-onnx attack or reproduce, the JSON file of jr-onnx tune or harden (--result) or bench "
    "(--output), or a hardened model"
)


def write_report(paths: Sequence[Path], path: Path, form: str = "html") -> Evaluation:
    """Put the results of an evaluation, and of other commands, into one report.

    Args:
        paths: Folders of `jr-onnx attack`: shards of one run, and runs of the same models at other budgets, which
            become points of the security curve. Further results become sections; see `gather`.
        path: The file.
        form: html, md, csv or json.

    Returns:
        The merged evaluation.

    Raises:
        InputError: A path holds no results, or those of other models; there is no such form.
        MissingExtraError: A package that the form, or a result, needs is not installed.
        OutputError: The file cannot be written.
    """
    report = gather(paths)
    write(report, path, form)
    return report.evaluation


def gather(paths: Sequence[Path], records: Sequence[Record] = ()) -> Report:
    """Read runs of attacks, and the results of other commands, which become sections of the report.

    Args:
        paths: At least one folder of `jr-onnx attack`; folders of `jr-onnx reproduce`; files with the result of `tune`,
            `bench` or `harden`, as these print it with --json; hardened models.
        records: Further results that are in memory.

    Raises:
        InputError: A path holds no results, or there is no run of attacks.
        MissingExtraError: A package that a result needs is not installed.
    """
    if not paths:
        raise InputError("a report needs a folder of results, found none", hint="jr-onnx attack --output makes one")
    folders = [path for path in paths if is_run(path)] or [paths[0]]  # which `read` refuses if it is none
    found = [record for path in paths if path not in folders for record in _records(path)]
    report = read(folders)
    return replace(report, sections=tuple(section_of(record, report) for record in (*found, *records)))


def section_of(record: Record, report: Report | None = None) -> Section:
    """Return the section that a result makes.

    Args:
        record: A `TuneResult`, `BenchReport`, `HardenResult`, `Hardening` or `ItemResult`.
        report: Where it goes; a section about another model file than the attacks says so.

    Raises:
        InputError: It is no such record, or contradicts itself. What is wrong with a chart only shows when it is drawn.
    """
    if _name(record.SCHEMA) not in _KINDS:
        raise InputError(f"a report has no section for a {record.SCHEMA} record", hint=f"Give {_EXPECTED}")
    what = f"the {record.SCHEMA} record cannot be shown, it contradicts itself"
    with blaming(what):
        section: Section = _module(record.SCHEMA).section(record)
    if section.draw is not None:
        section = replace(section, draw=_blamed(section.draw, what))
    if report is None or not section.models:
        return section
    run = report.evaluation.run
    if {*run.models.values(), *run.files.values()} & set(section.models):
        return section
    note = f"This is about another file than the attacks above: {section.models[0]}."
    return replace(section, text=(note, *section.text), finding="")


def _blamed(draw: Callable[[bool], str], what: str) -> Callable[[bool], str]:
    """Return what draws a chart, and blames a record whose figures cannot be drawn."""

    def drawn(narrow: bool) -> str:
        with blaming(what):
            return draw(narrow)

    return drawn


def _records(path: Path) -> list[Record]:
    """Read the results in a file or folder."""
    if path.is_dir():
        contents = ((file, _content(file)) for file in sorted(path.glob("*.json")))
        found = [_record(file, value) for file, value in contents if _name(_schema(value)) == "jr_onnx.reproduction"]
        if not found:
            raise InputError(f"{path} holds no results of jr-onnx", hint=f"Give {_EXPECTED}")
        return found
    if path.suffix == ".onnx":
        return [_hardening(path)]
    return [_record(path, _content(path))]


def _content(path: Path) -> Any:
    try:
        return parse(read_regular(path, LARGEST_RESULT_BYTES).decode())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a result of jr-onnx: it is not JSON", hint=f"Give {_EXPECTED}") from None


def _schema(value: Any) -> str:
    return str(value.get("schema", "")) if isinstance(value, dict) else ""


def _record(path: Path, value: Any) -> Record:
    schema = _schema(value)
    if schema == Evaluation.SCHEMA:
        raise InputError(f"{path} is the summary of an evaluation", hint=f"Give its folder, {path.parent}")
    if _name(schema) not in _KINDS:
        named = f"its schema is {schema!r}" if schema else "it names no schema"
        raise InputError(f"{path} is not a result that a report can show: {named}", hint=f"Give {_EXPECTED}")
    try:
        found: Record = _module(schema).record(value)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None
    return found


def _name(schema: str) -> str:
    """Return a schema without its version, which the record's class checks."""
    return schema.partition("/")[0]


def _module(schema: str) -> Any:
    """Import what reads and shows records of a schema; only benchmarks are read without torch."""
    name = _KINDS[_name(schema)]
    if name != "benchmark":
        require("torch", "attack")
    return importlib.import_module(f"jr_onnx.results.{name}")


def _hardening(path: Path) -> Record:
    metadata = {item.key: item.value for item in load(path).proto.metadata_props}
    if provenance.HARDENED_KEY not in metadata:
        raise InputError(f"{path} is a model that jr-onnx harden did not write", hint=f"Give {_EXPECTED}")
    try:
        value = parse(metadata[provenance.HARDENED_KEY])
    except (ValueError, RecursionError):
        raise InputError(f"{path}: its record of the hardening is not JSON") from None
    return _record(path, value)
