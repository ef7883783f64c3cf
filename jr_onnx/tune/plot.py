"""Draw the trade-off over kappa (paper, figure 4) with its intervals."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from jr_onnx.evaluation.statistics import wilson
from jr_onnx.report.svg import INK, NARROW, ORIGINAL, RETROFIT, error_bars, in_per_cent, new_figure
from jr_onnx.tune.records import TuneResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(result: TuneResult, *, narrow: bool = False) -> Figure:
    """Return a figure of clean accuracy and the objective over the kappas that all sites share.

    Shares have Wilson's 95 % intervals. A perturbation, which is not a share, has an axis of its own, and the interval
    of its gain over kappa 0, paired.

    Args:
        result: From `tune_kappa`.
        narrow: For a phone.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    points = [point for point in result.points if point.kappa is not None]
    kappas = [point.kappa or 0.0 for point in points]
    clean, objective = [point.clean for point in points], [point.objective for point in points]
    clean_spans = [_span(share, result.samples) for share in clean]
    is_share = result.objective != "paper"
    if is_share:
        spans = [_span(share, result.attacked) for share in objective]
    else:
        spans = [(objective[0] + point.low, objective[0] + point.high) for point in points]
    figure = new_figure(NARROW if narrow else 6.4, 3.8)
    left = figure.subplots()
    right = left if is_share else left.twinx()
    style: dict[str, Any] = {"markersize": 4, "capsize": 2, "elinewidth": 1}
    lines: list[Any] = [
        left.errorbar(kappas, clean, error_bars(clean, clean_spans), marker="s", linestyle="--", color=ORIGINAL,
                      label="clean accuracy", **style),
        right.errorbar(kappas, objective, error_bars(objective, spans), marker="o", color=RETROFIT,
                       label="\n".join(textwrap.wrap(result.measure, 44 if narrow else 80)), **style),
    ]  # fmt: skip
    chosen = result.points[result.recommended].kappa
    if chosen is not None:
        lines.append(left.axvline(chosen, color=INK, linewidth=1, linestyle=":", label="recommended"))
    left.set(xlabel="kappa", ylabel="accuracy", ylim=(0, 1.02))
    in_per_cent(left.yaxis)
    if right is not left:
        right.set_ylim(0, 1.1 * max(objective) or 1.0)
        right.set_ylabel("relative perturbation (paper, eq. 12)")
    left.grid(alpha=0.25)
    figure.legend(handles=lines, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def _span(share: float, total: int) -> tuple[float, float]:
    return wilson(round(share * total), total)
