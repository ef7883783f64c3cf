"""A report as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

from jr_onnx.evaluation.advice import wide_budget
from jr_onnx.evaluation.decision import who
from jr_onnx.evaluation.numbers import change, p_value, sentence, with_interval
from jr_onnx.evaluation.summary import CLEAN, AccuracyRow, Comparison, Share, accuracy_rows, case_name
from jr_onnx.report.content import Report


def as_json(report: Report) -> str:
    """Return the report as one JSON object: recommendation, findings, cautions, attackers, evaluation, curves."""
    content = {
        "schema": "jr_onnx.report/1",
        "recommendation": report.recommendation,
        "findings": list(report.findings),
        "cautions": list(report.cautions),
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
    """Return a line for every share: attackers, clean accuracy, worst cases of all runs, attacks, security curves.

    An attack that minimises has no robust accuracy of its own: its line has the share that it fools at any size, and
    the relative perturbation.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(report))
    return stream.getvalue()


_COLUMNS = ("what", "model", "norm", "eps", "robust", "low", "high", "count", "samples", "difference", "p", "fooled",
            "median_relative", "mean_relative")  # fmt: skip


def _lines(report: Report) -> Iterator[dict[str, str]]:
    run = report.evaluation.run
    for row in report.attackers:
        for label, share in row.shares.items():
            yield _line(f"attacker: {row.attacker}", label, run.norm, run.eps, share, row.difference)
    for evaluation in (report.evaluation, *report.others):
        pairs = {item.what: item for item in evaluation.comparisons}
        for figures in evaluation.models:
            if evaluation is report.evaluation:
                yield _line(CLEAN, figures.model, "", None, figures.clean, pairs.get(CLEAN))
            for case in figures.worst:
                pair = pairs.get(case_name(case.group, case.norm, case.eps))
                yield _line(f"worst case: {case.group}", figures.model, case.norm, case.eps, case.robust, pair)
    for figures in report.evaluation.models:
        for item in figures.entries:
            own = None if item.minimises else item.robust
            line = _line(f"attack: {item.entry}", figures.model, item.norm, item.eps, own, None)
            line["fooled"] = _number(item.success_rate)
            if item.eps is None:
                line["median_relative"] = _number(item.median_relative)
                line["mean_relative"] = _number(item.mean_relative)
            yield line
    for curve in report.curves:
        for eps, robust, low, high in zip(curve.eps, curve.robust, curve.low, curve.high, strict=True):
            where = {"what": "security curve", "model": curve.model, "norm": curve.norm, "eps": _number(eps)}
            yield {**where, "robust": _number(robust), "low": _number(low), "high": _number(high)}


def _line(
    what: str, model: str, norm: str, eps: float | None, share: Share | None, pair: Comparison | None
) -> dict[str, str]:
    line = {"what": what, "model": model, "norm": norm, "eps": "" if eps is None else _number(eps)}
    if share is not None:
        line |= {"robust": _number(share.value), "low": _number(share.low), "high": _number(share.high),
                 "count": str(share.count), "samples": str(share.total)}  # fmt: skip
    if pair is not None:
        line |= {"difference": _number(pair.difference), "p": _number(pair.p_value)}
    return line


def _number(value: float) -> str:
    return f"{value:.6g}"


def as_markdown(report: Report) -> str:
    """Return what decides as Markdown: recommendation, cautions, attackers, worst cases, verdicts, other results."""
    evaluation, run = report.evaluation, report.evaluation.run
    models = [figures.model for figures in evaluation.models]
    lines = [f"# {report.title}", "", f"**{report.recommendation}**", ""]
    lines += [*(f"- {line}" for line in report.findings), ""] if report.findings else []
    if report.cautions:
        lines += ["Before you quote these figures:", "", *(f"- {sentence(line)}" for line in report.cautions), ""]
    lines += [f"- {label}: {run.files.get(label, 'unnamed')}, SHA-256 {digest}" for label, digest in run.models.items()]
    lines += [f"- data: {run.data}, {evaluation.samples} images"]
    lines += [f"- attacks: {report.attacks}"]
    lines += [f"- command: `{run.command}`"] if run.command else []
    lines += [f"- date: {run.date[:10]}"] if run.date else []
    compared = [*models, *(("difference (95%)", "p") if len(models) > 1 else ())]
    attackers = [
        (who(row.attacker), [row.shares[label] for label in models], row.difference) for row in report.attackers
    ]
    if attackers:
        lines += ["", "## By attacker", "", *_shares(["the attacker", *compared], attackers)]
    lines += ["", "## Can these figures be trusted?", ""]
    for figures in evaluation.models:
        lines.append(f"- {figures.model}: {figures.verdict.headline.lower()}")
        lines += [f"  - {flag.name}: {flag.evidence}" for flag in figures.verdict.flags if flag.raised]
    if report.budgets:
        lines += ["", "## Robust accuracy at every budget", "", *_accuracies(compared, report.budgets)]
    for section in report.sections:
        lines += ["", f"## {section.title}", "", *(f"{line}\n" for line in section.text)]
        lines += markdown_table(section.columns, section.rows) if section.columns else []
    lines += ["", "## Accuracy, worst case per sample", ""]
    lines += _accuracies(compared, accuracy_rows(evaluation))
    lines += [f"\n{sentence(line)}" for line in wide_budget(evaluation)]
    if report.least_perturbations:
        lines += ["", "## Least perturbation", "", *(f"{line}\n" for line in report.least_perturbations)]
    notes = [sentence(note) for note in run.notes if not note.startswith("warning")]
    lines += ["", "## How this was measured", "", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines).rstrip("\n") + "\n"


def _accuracies(columns: Sequence[str], rows: Iterable[AccuracyRow]) -> list[str]:
    return _shares(["attacks", *columns], ((row.name, row.shares, row.difference) for row in rows))


def _shares(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[Share], Comparison | None]]) -> list[str]:
    """Return a table of shares, and of differences where there are two models."""
    cells = ((name, *map(with_interval, shares), *_pair(difference)) for name, shares, difference in rows)
    return markdown_table(columns, (row[: len(columns)] for row in cells))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [_row(cells) for cells in (columns, ["---"] * len(columns), *rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _pair(pair: Comparison | None) -> tuple[str, str]:
    return ("", "") if pair is None else (change(pair), p_value(pair.p_value))
