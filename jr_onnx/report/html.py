"""One self-contained page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jr_onnx.errors import InputError, require
from jr_onnx.evaluation.advice import advice
from jr_onnx.evaluation.decision import kappa_range, who
from jr_onnx.evaluation.summary import ALL_ATTACKS, SIGNIFICANT, Comparison, Evaluation, accuracy_rows, case_name
from jr_onnx.modelfile import atomic_write
from jr_onnx.report.content import Report
from jr_onnx.report.numbers import interval, p_value, percent, points, points_interval, relative
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
        p=p_value, who=who,
    )  # fmt: skip
    run = evaluation.run
    shown = {figures.model: report.outcomes[figures.model] for figures in evaluation.models}
    examples = report.examples
    template = environment.get_template("report.html")
    return str(
        template.render(
            evaluation=evaluation,
            run=run,
            kappa=kappa_range(evaluation) or "none",
            alone=evaluation.models[0].model if len(evaluation.models) == 1 else None,
            preprocessing=_flat(run.preprocessing),
            summary=summary(evaluation),
            recommendation=report.recommendation,
            attackers=report.attackers,
            security=_chart(lambda narrow: security_curve(report.curves, narrow=narrow)),
            iterations=_chart(lambda narrow: accuracy_by_iterations(report.iterations, narrow=narrow)),
            sections=[(section, section.draw and _chart(section.draw)) for section in report.sections],
            pictures={} if examples is None else groups(examples, run.eps),
            has_examples=examples is not None,
            advice=advice(evaluation),
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


def summary(evaluation: Evaluation) -> list[str]:
    """Say in plain sentences what the retrofit buys."""
    lines = [
        f"Gradients of the {figures.model} model are masked: what attacks with its exact gradient report is too good. "
        "Only the worst case over all attacks counts."
        for figures in evaluation.models
        if figures.verdict.masked
    ]
    worst = case_name(ALL_ATTACKS, evaluation.run.norm, evaluation.run.eps)
    asked = [item for item in evaluation.comparisons if item.what == worst]
    if asked:
        lines.append(_gain(asked[0], evaluation))
    for item in evaluation.minimal:
        if item.p_value < SIGNIFICANT and item.ratio != 1:
            change = f"{percent(abs(item.ratio - 1))} {'larger' if item.ratio > 1 else 'smaller'}"
            lines.append(
                f"The least {item.norm} perturbation that fools the retrofit is {change} than "
                f"the original's (median of {item.samples} paired samples, p {p_value(item.p_value)})."
            )
    return lines


def _gain(item: Comparison, evaluation: Evaluation) -> str:
    budget = f"{evaluation.run.norm} {evaluation.run.eps:.4g}"
    text = f"{points(item)} points (95 % interval {points_interval(item)}, p {p_value(item.p_value)}) at {budget}"
    if item.p_value >= SIGNIFICANT:
        return f"Against all attacks together the retrofit and the original do not differ significantly: {text}."
    word = "more" if item.difference > 0 else "less"
    return f"Against all attacks together the retrofit is {word} robust than the original: {text}."


def _flat(text: str) -> str:
    """Write a record in JSON as words; what is none, which only a damaged file holds, as it is."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(record, dict):
        return text
    return ", ".join(f"{key} {value}" for key, value in record.items() if key != "schema")
