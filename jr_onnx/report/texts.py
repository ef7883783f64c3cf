"""A report as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from jr_onnx.evaluation.advice import advice
from jr_onnx.evaluation.summary import CLEAN, Comparison, Share, accuracy_rows
from jr_onnx.report.content import Report
from jr_onnx.report.numbers import change, p_value, with_interval


def as_json(report: Report) -> str:
    """Return the report as one JSON object: recommendation, attackers, evaluation, curves."""
    content = {
        "schema": "jr_onnx.report/1",
        "recommendation": report.recommendation,
        "attackers": [row.to_json() for row in report.attackers],
        "evaluation": report.evaluation.to_json(),
        "others": [item.to_json() for item in report.others],
        "curves": [curve.to_json() for curve in report.curves],
        "examples": None if report.examples is None else report.examples.table.to_json(),
        "results": [section.record.to_json() for section in report.sections],
        "iterations": [curve.to_json() for curve in report.iterations],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(report: Report) -> str:
    """Return a line for every share: group, model, norm, eps, share, interval, images, difference."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("what", "model", "norm", "eps", "robust", "low", "high", "count", "samples", "difference", "p"))
    run = report.evaluation.run

    def line(what: str, model: str, norm: str, eps: float | None, share: Share, pair: Comparison | None) -> None:
        both = ("", "") if pair is None else (f"{pair.difference:.6g}", f"{pair.p_value:.6g}")
        budget = "" if eps is None else f"{eps:.6g}"
        numbers = (f"{share.value:.6g}", f"{share.low:.6g}", f"{share.high:.6g}", share.count, share.total)
        writer.writerow((what, model, norm, budget, *numbers, *both))

    for row in report.attackers:
        for label, share in row.shares.items():
            line(f"attacker: {row.attacker}", label, run.norm, run.eps, share, row.difference)
    for figures in report.evaluation.models:
        line(CLEAN, figures.model, "", None, figures.clean, None)
        for case in figures.worst:
            line(f"worst case: {case.group}", figures.model, case.norm, case.eps, case.robust, None)
        for item in figures.entries:
            line(f"attack: {item.entry}", figures.model, item.norm, item.eps, item.robust, None)
    return stream.getvalue()


def as_markdown(report: Report) -> str:
    """Return what decides as Markdown: recommendation, attackers, worst cases, verdicts, what to know."""
    evaluation, run = report.evaluation, report.evaluation.run
    models = [figures.model for figures in evaluation.models]
    lines = ["# Robustness report", "", f"**{report.recommendation}**", ""]
    lines += [f"- {label}: {run.files.get(label, 'unnamed')}, SHA-256 {digest}" for label, digest in run.models.items()]
    lines += [f"- data: {run.data}, {evaluation.samples} images", f"- budget: {run.norm} {run.eps:.4g} in pixel scale"]
    lines += [f"- date: {run.date}"] if run.date else []
    lines += [f"- command: `{run.command}`"] if run.command else []
    compared = [*models, "difference (95%)", "p"]
    attackers = [
        (row.attacker, *(with_interval(row.shares[label]) for label in models), *_pair(row.difference))
        for row in report.attackers
    ]
    lines += ["", "## By attacker", "", *markdown_table(["attacker", *compared], attackers)]
    cases = [
        (row.name, *(with_interval(share) for share in row.shares), *_pair(row.difference))
        for row in accuracy_rows(evaluation)
    ]
    lines += ["", "## Worst cases", "", *markdown_table(["attacks", *compared], cases)]
    lines += ["", "## Masking", ""]
    for figures in evaluation.models:
        lines.append(f"- {figures.model}: {figures.verdict.headline}")
        lines += [f"  - {flag.name}: {flag.evidence}" for flag in figures.verdict.flags if flag.raised]
    for section in report.sections:
        lines += ["", f"## {section.title}", "", *(f"{line}\n" for line in section.text)]
        lines += markdown_table(section.columns, section.rows) if section.columns else []
    notes = [*run.notes, *advice(evaluation)]
    lines += ["", "## Before you quote these figures", "", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [_row(cells) for cells in (columns, ["---"] * len(columns), *rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _pair(pair: Comparison | None) -> tuple[str, str]:
    return ("", "") if pair is None else (change(pair), p_value(pair.p_value))
