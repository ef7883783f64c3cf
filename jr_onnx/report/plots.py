"""The pictures of a report, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jr_onnx.errors import require
from jr_onnx.evaluation.curve import SecurityCurve
from jr_onnx.evaluation.minimal import least, minimal_outcomes
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.summary import ALL_ATTACKS, EntryFigures, Evaluation

COLOURS = {"original": "#6b7785", "retrofit": "#0b6fb8"}
_OTHER = "#8f5fb0"
_BAR = 0.38


def robust_accuracy(evaluation: Evaluation, *, narrow: bool = False) -> str:
    """Draw the robust accuracy under every attack with a budget, the worst case on top, a panel per budget.

    Args:
        evaluation: What was found.
        narrow: For a telephone.
    """
    panels = budgets(evaluation)
    if not panels:
        return ""
    rows = [len(_entries(evaluation, norm, eps)) + 1 for norm, eps in panels]
    figure = _figure(4.6 if narrow else 9.0, 0.42 * sum(rows) + 0.85 * len(rows))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=rows, sharex=True)[:, 0]
    for panel, (norm, eps) in zip(axes, panels, strict=True):
        _panel(panel, evaluation, norm, eps)
    axes[-1].set_xlabel("robust accuracy, with 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return _svg(figure, "Bars of robust accuracy under every attack; the table of every attack has the figures")


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


def minimal_perturbation(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Draw the share of correctly classified samples that are fooled within a relative perturbation, per norm."""
    norms = sorted({norm for entries in outcomes.values() for norm in minimal_outcomes(list(entries.values()))})
    if not norms:
        return ""
    figure = _figure(4.6 * len(norms) if len(norms) > 1 else 5.6, 3.2)
    for panel, norm in zip(figure.subplots(1, len(norms), squeeze=False)[0], norms, strict=True):
        edge = 0.0
        for label, entries in outcomes.items():
            members = minimal_outcomes(list(entries.values())).get(norm, [])
            if members:
                edge = max(edge, _curve(panel, label, members))
        panel.set(title=norm, xlabel="relative perturbation (paper, eq. 12)", ylim=(0, 1.02), xlim=(0, edge or 1.0))
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.25)
    first = figure.axes[0]
    first.set_ylabel("share of samples fooled")
    if first.get_legend_handles_labels()[0]:
        first.legend(frameon=False, loc="lower right")
    return _svg(figure, "Curves of the share of samples fooled against the relative perturbation")


def security_curve(curves: Sequence[SecurityCurve], *, narrow: bool = False) -> str:
    """Draw robust accuracy against eps with bands, a panel a norm; runs at fixed budgets are points on it."""
    norms = sorted({curve.norm for curve in curves})
    if not norms:
        return ""
    shape = (len(norms), 1) if narrow else (1, len(norms))
    figure = _figure(4.4 * shape[1] if len(norms) > 1 or narrow else 5.6, 3.2 * shape[0])
    for panel, norm in zip(figure.subplots(*shape, squeeze=False).ravel(), norms, strict=True):
        for curve in curves:
            if curve.norm != norm:
                continue
            colour, style = COLOURS.get(curve.model, _OTHER), "--" if curve.model == "original" else "-"
            panel.plot(curve.eps, curve.robust, style, color=colour, linewidth=1.8, label=curve.model)
            panel.fill_between(curve.eps, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            for eps, share in curve.points:
                if eps <= curve.eps[-1]:
                    span = [[max(0.0, share.value - share.low)], [max(0.0, share.high - share.value)]]
                    mark = "s" if curve.model == "original" else "o"
                    panel.errorbar([eps], [share.value], yerr=span, marker=mark, color=colour, capsize=3)
        panel.set(title=norm, xlabel="eps in pixel scale", ylim=(0, 1.02), xlim=(0, None))
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel("robust accuracy")
    figure.axes[0].legend(frameon=False, loc="upper right")
    return _svg(figure, "Curves of robust accuracy against the budget, original and retrofit, with 95 % bands")


def trade_off(
    kappas: Sequence[float], clean: Sequence[float], objective: Sequence[float], measure: str, *, is_share: bool,
    chosen: float | None = None,
) -> Any:  # fmt: skip
    """Return a figure of clean accuracy and an objective over kappa (paper, figure 4).

    Args:
        kappas: From small to large.
        clean: Clean accuracies.
        objective: Values of the objective.
        measure: What it measures, in words.
        is_share: Whether it is an accuracy too; else it gets an axis of its own.
        chosen: The recommended kappa.
    """
    figure = _figure(6.4, 3.8)
    left = figure.subplots()
    right = left if is_share else left.twinx()
    lines = [
        *left.plot(kappas, clean, marker="o", markersize=4, color=COLOURS["original"], label="clean accuracy"),
        *right.plot(kappas, objective, marker="s", markersize=4, color=COLOURS["retrofit"], label=measure),
    ]
    if chosen is not None:
        lines.append(left.axvline(chosen, color="#b4442c", linewidth=1, linestyle="--", label="recommended"))
    left.set(xlabel="kappa", ylabel="accuracy", ylim=(0, 1.02))
    if right is not left:
        right.set_ylim(0, 1.1 * max(objective, default=1.0) or 1.0)
        right.set_ylabel("relative perturbation (paper, eq. 12)")
    left.grid(alpha=0.25)
    figure.legend(handles=lines, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def _panel(axes: Any, evaluation: Evaluation, norm: str, eps: float) -> None:
    names = _entries(evaluation, norm, eps)
    labels = ["worst case of all attacks", *names]
    for number, figures in enumerate(evaluation.models):
        worst = next(item for item in figures.worst if (item.group, item.norm, item.eps) == (ALL_ATTACKS, norm, eps))
        by_name = {item.entry: item.robust for item in figures.entries}
        shares = [worst.robust, *(by_name[name] for name in names)]
        places = [row + (number - (len(evaluation.models) - 1) / 2) * _BAR for row in range(len(labels))]
        values = [share.value for share in shares]
        errors = [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]
        axes.barh(
            places, values, _BAR, xerr=np.clip(errors, 0, None), label=figures.model, capsize=2,
            color=COLOURS.get(figures.model, _OTHER), error_kw={"linewidth": 0.9, "ecolor": "#30363d"},
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.axhline(0.5, color="#30363d", linewidth=0.6)
    axes.invert_yaxis()
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
        color=COLOURS.get(label, _OTHER), linewidth=1.8,
    )  # fmt: skip
    return edge


def _figure(width: float, height: float) -> Any:
    require("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, max(1.6, height)), layout="constrained")


def _svg(figure: Any, description: str) -> str:
    """Return a figure as an SVG element that scales with the page; no date, so that equal figures are equal text.

    Args:
        figure: The figure.
        description: What a screen reader says in its place.
    """
    import matplotlib as mpl

    for axes in figure.axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "jr-onnx", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for attribute in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
