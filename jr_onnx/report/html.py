"""One self-contained page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jr_onnx.errors import InputError, require
from jr_onnx.evaluation.advice import wide_budget
from jr_onnx.evaluation.decision import who
from jr_onnx.evaluation.numbers import interval, p_value, percent, points, points_interval, relative, sentence
from jr_onnx.evaluation.summary import accuracy_rows
from jr_onnx.modelfile import atomic_write
from jr_onnx.report.content import Report
from jr_onnx.report.pictures import groups
from jr_onnx.report.plots import accuracy_by_iterations, minimal_perturbation, robust_accuracy, security_curve
from jr_onnx.report.texts import as_csv, as_json, as_markdown


def write(report: Report, path: Path, form: str = "html") -> None:
    """Write a report.

    Args:
        report: From `read`.
        path: The file.
        form: html, md, csv or json.

    Raises:
        InputError: There is no such form.
        MissingExtraError: matplotlib or jinja2 is not installed, and the form is html.
        OutputError: The file cannot be written.
    """
    makers = {"html": page, "md": as_markdown, "csv": as_csv, "json": as_json}
    if form not in makers:
        raise InputError(f"found the form {form!r}, expected one of {', '.join(makers)}")
    text = makers[form](report)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, [text.encode()])


def page(report: Report) -> str:
    """Return the report as one self-contained HTML page."""
    evaluation = report.evaluation
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jr_onnx.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=percent, interval=interval, points=points, points_interval=points_interval, relative=relative,
        p=p_value, who=who, sentence=sentence,
    )  # fmt: skip
    run = evaluation.run
    shown = {figures.model: report.outcomes[figures.model] for figures in evaluation.models}
    examples = report.examples
    template = environment.get_template("report.html")
    return str(
        template.render(
            evaluation=evaluation,
            run=run,
            title=report.title,
            paired=len(evaluation.models) > 1,
            preprocessing=_flat(run.preprocessing),
            recommendation=report.recommendation,
            findings=report.findings,
            cautions=report.cautions,
            wide_budget=wide_budget(evaluation),
            least_perturbations=report.least_perturbations,
            attacks=report.attacks,
            attackers=report.attackers,
            budgets=report.budgets,
            security=_chart(lambda narrow: security_curve(report.curves, narrow=narrow)),
            iterations=_chart(lambda narrow: accuracy_by_iterations(report.iterations, narrow=narrow)),
            sections=[(section, section.draw and _chart(section.draw)) for section in report.sections],
            pictures={} if examples is None else groups(examples, run.eps),
            has_examples=examples is not None,
            accuracies=accuracy_rows(evaluation),
            has_paper=any(item.protocol == "paper" for item in evaluation.models[0].entries),
            bars=_chart(lambda narrow: robust_accuracy(evaluation, narrow=narrow)),
            curves=_chart(lambda narrow: minimal_perturbation(shown, narrow=narrow)),
        )
    )


def _chart(draw: Callable[[bool], str]) -> dict[str, Any] | None:
    """Draw a chart for a wide page and for a phone; None where there is nothing to draw."""
    markup: Any = require("markupsafe", "report").Markup
    wide = draw(False)
    return {"wide": markup(wide), "narrow": markup(draw(True))} if wide else None


def _flat(text: str) -> str:
    """Write a record in JSON as words, and other text, which only a damaged file holds, as it is."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(record, dict):
        return text
    return ", ".join(
        f"{key} {_plain(value)}" for key, value in record.items() if key != "schema" and value not in ([], 0)
    )


def _plain(value: Any) -> str:
    """Write a list as its items; numbers without a trailing .0."""
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
