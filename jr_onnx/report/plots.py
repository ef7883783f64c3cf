"""The pictures of a report, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jr_onnx.evaluation.curve import SecurityCurve
from jr_onnx.evaluation.iterations import GRADIENTS, IterationCurve
from jr_onnx.evaluation.minimal import least, minimal_outcomes
from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import ALL_ATTACKS, EntryFigures, Evaluation
from jr_onnx.report.svg import (
    COLOURS,
    INK,
    LINES,
    MARKS,
    NARROW,
    THIRD,
    as_svg,
    curve_style,
    error_bars,
    in_per_cent,
    new_figure,
)

_BAR, _NARROW_BAR = 0.38, 0.26
_HATCH = {"original": "///"}
"""Bars are distinguished without their colours."""


def robust_accuracy(evaluation: Evaluation, *, narrow: bool = False) -> str:
    """Draw the robust accuracy under every attack with a budget, the worst case on top, a panel per budget.

    Args:
        evaluation: What was found.
        narrow: For a phone.
    """
    panels = budgets(evaluation)
    if not panels:
        return ""
    rows = [len(_entries(evaluation, norm, eps)) + 1 for norm, eps in panels]
    figure = new_figure(NARROW if narrow else 9.0, (0.55 if narrow else 0.42) * sum(rows) + 0.85 * len(rows))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=rows, sharex=True)[:, 0]
    for panel, (norm, eps) in zip(axes, panels, strict=True):
        _panel(panel, evaluation, norm, eps, narrow=narrow)
    in_per_cent(axes[-1].xaxis)
    axes[-1].set_xlabel("robust accuracy" if narrow else "robust accuracy, with 95% interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return as_svg(figure, "Bars of robust accuracy under every attack; the table of every attack has the figures")


def budgets(evaluation: Evaluation) -> list[tuple[str, float]]:
    """Return the budgets of the adaptive attacks: (norm, eps), the asked-for one first."""
    found = {
        (item.norm, item.eps)
        for figures in evaluation.models
        for item in figures.entries
        if item.protocol == "adaptive" and item.eps is not None
    }
    asked = (evaluation.run.norm, evaluation.run.eps)
    return sorted(found, key=lambda key: (key != asked, key))


def minimal_perturbation(outcomes: Outcomes, *, narrow: bool = False) -> str:
    """Draw the share of correctly classified samples that are fooled within a relative perturbation, per norm."""
    norms = sorted({norm for entries in outcomes.values() for norm in minimal_outcomes(list(entries.values()))})
    if not norms:
        return ""
    figure, panels = _panels(norms, narrow=narrow)
    for panel, norm in zip(panels, norms, strict=True):
        edge = 0.0
        for label, entries in outcomes.items():
            members = minimal_outcomes(list(entries.values())).get(norm, [])
            if members:
                edge = max(edge, _curve(panel, label, members))
        panel.set(title=norm, xlabel="relative perturbation (paper, eq. 12)", ylim=(0, 1.02), xlim=(0, edge or 1.0))
        panel.locator_params(axis="x", nbins=5)
        in_per_cent(panel.xaxis)
        in_per_cent(panel.yaxis)
        panel.grid(alpha=0.25)
    first = figure.axes[0]
    first.set_ylabel("share of samples fooled")
    if first.get_legend_handles_labels()[0]:
        first.legend(frameon=False, loc="lower right")
    return as_svg(figure, "Curves of the share of samples fooled against the relative perturbation")


def security_curve(curves: Sequence[SecurityCurve], *, narrow: bool = False) -> str:
    """Draw robust accuracy against eps with bands, a panel a norm; runs at fixed budgets are points on it."""
    norms = sorted({curve.norm for curve in curves})
    if not norms:
        return ""
    figure, panels = _panels(norms, narrow=narrow)
    for panel, norm in zip(panels, norms, strict=True):
        for curve in curves:
            if curve.norm != norm:
                continue
            colour, style = COLOURS.get(curve.model, THIRD), LINES.get(curve.model, "-")
            panel.plot(curve.eps, curve.robust, style, color=colour, linewidth=1.8, label=curve.model)
            panel.fill_between(curve.eps, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            for eps, share in curve.points:
                if eps <= curve.eps[-1]:
                    span = error_bars([share.value], [(share.low, share.high)])
                    mark = MARKS.get(curve.model, "D")
                    panel.errorbar([eps], [share.value], yerr=span, marker=mark, color=colour, capsize=3)
        panel.set(title=norm, xlabel="eps in pixel scale", ylim=(0, 1.02), xlim=(0, None))
        in_per_cent(panel.yaxis)
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel("robust accuracy")
    figure.axes[0].legend(frameon=False, loc="best")
    return as_svg(figure, "Curves of robust accuracy against the budget, original and retrofit, with 95% bands")


def accuracy_by_iterations(curves: Sequence[IterationCurve], *, narrow: bool = False) -> str:
    """Draw robust accuracy against the iterations that attacks were given, a panel a group of attacks."""
    groups = list(dict.fromkeys(curve.group for curve in curves))
    if not groups:
        return ""
    figure, panels = _panels(groups, narrow=narrow)
    for panel, group in zip(panels, groups, strict=True):
        most = 1
        for curve in curves:
            if curve.group != group:
                continue
            colour, most = COLOURS.get(curve.model, THIRD), max(most, curve.iterations[-1])
            panel.plot(
                curve.iterations, curve.robust, LINES.get(curve.model, "-"), marker=MARKS.get(curve.model, "D"),
                markersize=3.5, color=colour, linewidth=1.6, label=curve.model,
            )  # fmt: skip
            panel.fill_between(curve.iterations, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        panel.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000) if tick <= most]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set(title=group, xlabel="iterations", ylim=(0, 1.02), xlim=(0, most * 1.05))
        in_per_cent(panel.yaxis)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel("robust accuracy")
    figure.axes[0].legend(frameon=False, loc="upper right" if GRADIENTS in groups else "best")
    return as_svg(figure, "Curves of robust accuracy against the number of iterations, with 95% bands")


def lines(
    at: Sequence[float], curves: Mapping[str, Sequence[float]], axes: tuple[str, str], description: str, *, narrow: bool
) -> str:  # fmt: skip
    """Draw shares as lines that differ in colour, style and mark.

    Args:
        at: Whole numbers.
        curves: Name -> shares.
        axes: Names of the axes.
        description: What a screen reader says.
        narrow: For a phone.
    """
    figure = new_figure(NARROW if narrow else 6.4, 3.4)
    panel = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        panel.plot(at, values, markersize=4, label=name, **curve_style(number, number, number))
    panel.set(xlabel=axes[0], ylabel=axes[1], ylim=(0, 1.02))
    panel.locator_params(axis="x", integer=True, nbins=8)
    in_per_cent(panel.yaxis)
    panel.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2 if narrow else 3, frameon=False, fontsize=9)
    return as_svg(figure, description)


def _panel(axes: Any, evaluation: Evaluation, norm: str, eps: float, *, narrow: bool) -> None:
    names = _entries(evaluation, norm, eps)
    labels = ["worst case of all attacks", *names]
    bar, shift = (_NARROW_BAR, 0.2) if narrow else (_BAR, 0.0)
    for number, figures in enumerate(evaluation.models):
        worst = next(item for item in figures.worst if (item.group, item.norm, item.eps) == (ALL_ATTACKS, norm, eps))
        by_name = {item.entry: item.robust for item in figures.entries}
        shares = [worst.robust, *(by_name[name] for name in names)]
        places = [row + shift + (number - (len(evaluation.models) - 1) / 2) * bar for row in range(len(labels))]
        values = [share.value for share in shares]
        errors = error_bars(values, [(share.low, share.high) for share in shares])
        axes.barh(
            places, values, bar, xerr=errors, label=figures.model, capsize=2,
            hatch=_HATCH.get(figures.model), edgecolor=INK, linewidth=0.6,
            color=COLOURS.get(figures.model, THIRD), error_kw={"linewidth": 0.9, "ecolor": INK},
        )  # fmt: skip
    if narrow:  # names above the bars, which so have the whole width
        axes.set_yticks([])
        for row, label in enumerate(labels):
            weight = "normal" if row else "bold"
            axes.text(0.01, row - 0.26, label, fontsize=9, fontweight=weight, va="center", color=INK)
    else:
        axes.set_yticks(range(len(labels)), labels)
        axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.axhline(0.53, color=INK, linewidth=0.6)
    axes.set_xlim(0, 1)
    axes.set_title(f"{norm}, eps {eps:.4g}", loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.25)


def _entries(evaluation: Evaluation, norm: str, eps: float) -> list[str]:
    def belongs(item: EntryFigures) -> bool:
        return item.protocol == "adaptive" and (item.norm, item.eps) == (norm, eps)

    return [item.entry for item in evaluation.models[0].entries if belongs(item)]


def _curve(axes: Any, label: str, members: Sequence[Outcome]) -> float:
    sizes = np.sort(least(members)[members[0].attacked])
    finite = sizes[np.isfinite(sizes)]
    if not len(finite):
        return 0.0
    edge = float(finite[-1]) * 1.05
    heights = np.arange(1, len(finite) + 1) / len(sizes)
    axes.step(
        [0, *finite, edge], [0, *heights, heights[-1]], where="post", label=label,
        color=COLOURS.get(label, THIRD), linestyle=LINES.get(label, "-"), linewidth=1.8,
    )  # fmt: skip
    return edge


def _panels(names: Sequence[str], *, narrow: bool) -> tuple[Any, Any]:
    """Return a figure with a panel for every name: side by side, or narrow one below the other."""
    shape = (len(names), 1) if narrow else (1, len(names))
    width = NARROW if narrow else max(5.6, 4.5 * len(names))
    figure = new_figure(width, (2.8 if narrow else 3.2) * shape[0])
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.12)
    return figure, figure.subplots(*shape, squeeze=False).ravel()
