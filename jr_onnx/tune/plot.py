"""Draw the trade-off over kappa (paper, figure 4) with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jr_onnx.evaluation.statistics import wilson
from jr_onnx.report.plots import trade_off
from jr_onnx.tune.records import TuneResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(result: TuneResult, *, narrow: bool = False) -> Figure:
    """Return a figure of clean accuracy and the objective over the kappas that all sites share.

    Shares have Wilson's 95 % intervals. A perturbation, which is no share, has that of its gain over kappa 0, paired.

    Args:
        result: From `tune_kappa`.
        narrow: For a telephone.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    points = [point for point in result.points if point.kappa is not None]
    is_share = result.objective != "paper"
    zero = points[0].objective
    return trade_off(
        [point.kappa or 0.0 for point in points],
        [point.clean for point in points],
        [point.objective for point in points],
        result.measure,
        is_share=is_share,
        chosen=result.points[result.recommended].kappa,
        clean_spans=[_span(point.clean, result.samples) for point in points],
        spans=[
            _span(point.objective, result.attacked) if is_share else (zero + point.low, zero + point.high)
            for point in points
        ],
        narrow=narrow,
    )


def _span(share: float, total: int) -> tuple[float, float]:
    return wilson(round(share * total), total)
