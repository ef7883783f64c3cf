"""Print an evaluation as tables: the verdict first, then the worst cases, then every attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jr_onnx.cli.output import print_lines, print_message, print_table
from jr_onnx.evaluation.numbers import change, interval, p_value, percent, relative, with_interval

if TYPE_CHECKING:
    from jr_onnx.evaluation.summary import EntryFigures, Evaluation, ModelFigures


_SUSPICIOUS = 0.5


def show(evaluation: Evaluation) -> None:
    """Print an evaluation."""
    from jr_onnx.evaluation.advice import advice

    if evaluation.run.logits:
        print_lines(f"logits: {evaluation.run.logits}\n")
    for figures in evaluation.models:
        _show_model(figures)
    _show_worst(evaluation)
    _show_minimal(evaluation)
    for figures in evaluation.models:
        _show_verdict(figures)
    for line in advice(evaluation):
        print_lines(f"\nnote: {line}")
    _warn_of_the_data(evaluation)
    if not evaluation.complete:
        print_lines(
            f"\nThese are {evaluation.samples} of {evaluation.run.samples} samples: run the other shards and merge "
            "them with jr-onnx report, or run the same command again."
        )


def _show_model(figures: ModelFigures) -> None:
    print_table(
        ("attack", "knows", "robust", "95%", "fooled", "median", "mean", "grads"),
        [
            (
                item.entry,
                knows(item),
                "" if item.minimises else percent(item.robust.value),
                "" if item.minimises else interval(item.robust),
                percent(item.success_rate),
                # Of an attack that uses its whole budget, the size of the perturbation says nothing.
                relative(item.median_relative) if item.eps is None else "",
                relative(item.mean_relative) if item.eps is None else "",
                f"{item.mean_backward:.0f}",
            )
            for item in figures.entries
        ],
        title=f"{figures.model}: clean accuracy {percent(figures.clean.value)} ({interval(figures.clean)}) "
        f"of {figures.clean.total}",
    )
    if any(item.minimises for item in figures.entries):
        print_lines(
            "an attack that minimises has no budget, and so no robust accuracy of its own; what it finds within the "
            "budget counts in the worst case"
        )
    print_lines(f"replay: {replay(figures)}\n")


def replay(figures: ModelFigures) -> str:
    """Describe what judged the examples, and how often torch and ONNX Runtime differ."""
    both = [item for item in figures.entries if item.view != "black_box"]
    repeated = f", each by the majority of {figures.decided_by} runs" if figures.decided_by > 1 else ""
    if not both:
        judged = sum(item.robust.total for item in figures.entries)
        return f"ONNX Runtime alone judged all {judged} examples{repeated}"
    judged, differ = sum(item.robust.total for item in both), sum(item.disagreements for item in both)
    return f"torch and ONNX Runtime judge {differ} of {judged} examples differently{repeated}"


def _show_worst(evaluation: Evaluation) -> None:
    from jr_onnx.evaluation.summary import accuracy_rows

    print_table(
        ("worst case per sample", *(item.model for item in evaluation.models), "difference, points", "p"),
        [
            (
                row.name,
                *map(with_interval, row.shares),
                change(row.difference) if row.difference else "",
                p_value(row.difference.p_value) if row.difference else "",
            )
            for row in accuracy_rows(evaluation)
        ],
        title="robust accuracy (95% interval), McNemar's p of the difference",
    )


def _show_minimal(evaluation: Evaluation) -> None:
    norms = [item.norm for item in evaluation.models[0].minimal]
    if not norms:
        return
    rows = []
    for position, norm in enumerate(norms):
        cells = []
        for figures in evaluation.models:
            item = figures.minimal[position]
            cells.append(
                f"{relative(item.median_relative)} / {relative(item.mean_relative)} / {percent(item.success_rate)}"
            )
        compared = next((item for item in evaluation.minimal if item.norm == norm), None)
        rows.append(
            (
                f"{norm}: median / mean / success",
                *cells,
                f"x {compared.ratio:.3g}" if compared is not None else "",
                p_value(compared.p_value) if compared is not None else "",
            )
        )
    click.echo()
    names = (item.model for item in evaluation.models)
    print_table(("least relative perturbation", *names, "ratio", "p"), rows, title="sign test's p of the ratio")


def _show_verdict(figures: ModelFigures) -> None:
    verdict = figures.verdict
    raised = [flag for flag in verdict.flags if flag.raised]
    unchecked = [flag.name for flag in verdict.flags if not flag.checked]
    print_lines(f"\nmasking verdict, {figures.model}: {verdict.headline}")
    for flag in raised:
        print_lines(f"  {flag.name}: {flag.evidence} (p {flag.p_value:.1g}). {flag.remedy}.")
    if unchecked:
        print_lines(f"  not checked by this suite: {', '.join(unchecked)}")


def _warn_of_the_data(evaluation: Evaluation) -> None:
    """Warn if clean accuracy is low: robust accuracy of a model that does not classify the data means nothing."""
    for figures in evaluation.models:
        if figures.clean.total and figures.clean.value < _SUSPICIOUS:
            print_message(
                f"warning: the {figures.model} classifies only {percent(figures.clean.value)} of the clean images "
                "correctly; if you expected more, check --preprocess, and that the labels are numbered like the "
                "model's outputs"
            )


def knows(item: EntryFigures) -> str:
    """Describe what an attack knows of the model, and whether it adapts to the jump."""
    threat = item.threat if item.threat == "gray_box" else item.view
    return threat.replace("_", " ") + (", not adaptive" if item.protocol == "paper" else "")
