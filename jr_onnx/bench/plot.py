"""Draw a benchmark: the ratio of every variant to the original, with its confidence interval, a panel per case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jr_onnx.bench.records import BenchReport, CaseResult
from jr_onnx.report.svg import INK, NARROW, ORIGINAL, RETROFIT, THIRD, error_bars, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"onnxruntime": ORIGINAL, "plain": THIRD, "optimised": RETROFIT, "standard": ORIGINAL}


def plot(report: BenchReport, path: Path) -> None:
    """Write the picture; the ending of the path says in which format.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: The file cannot be written, or its format is unknown.
    """
    figure = draw(report)
    figure.suptitle(f"{report.model}: time relative to the original")
    figure.supxlabel(
        f"{report.environment.cpu}, ONNX Runtime {report.environment.onnxruntime}, {report.environment.date[:10]}",
        fontsize=8,
    )
    write_figure(figure, path)


def draw(report: BenchReport, *, narrow: bool = False) -> Figure:
    """Return a figure with a panel for every case.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    count = len(report.cases)
    rows = max((len(case.rows) for case in report.cases), default=0)
    figure = new_figure(NARROW if narrow else 7.0, (0.9 + 0.38 * rows) * count + 0.6)
    panels = figure.subplots(count, 1, squeeze=False)[:, 0]
    for axes, case in zip(panels, report.cases, strict=True):
        _panel(axes, case)
    panels[-1].set_xlabel("time relative to the original")
    return figure


def _panel(axes: Any, case: CaseResult) -> None:
    rows = [row for row in case.rows if row.session != "onnxruntime"]
    places = range(len(rows))
    values = [row.ratio for row in rows]
    errors = error_bars(values, [(row.ratio_low, row.ratio_high) for row in rows])
    axes.barh(places, values, xerr=errors, color=[_COLOURS[row.session] for row in rows], capsize=3, height=0.6)
    axes.axvline(1.0, color=INK, linewidth=1)
    axes.set_yticks(places, [row.variant for row in rows])
    axes.invert_yaxis()
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            f" {row.ratio:.3f}", (row.ratio_high, place), va="center", fontsize=8, xytext=(4, 0),
            textcoords="offset points",
        )  # fmt: skip
    axes.set_xlim(0, max(row.ratio_high for row in rows) * 1.15 if rows else 1)
    axes.set_title(case.name, fontsize=9)
