"""The trade-off over kappa as a section of a report."""

from __future__ import annotations

from jr_onnx.evaluation.numbers import p_value, percent, points, points_interval
from jr_onnx.records import JsonValue
from jr_onnx.report import Section
from jr_onnx.report.svg import as_svg
from jr_onnx.tune.plot import draw
from jr_onnx.tune.records import TunePoint, TuneResult

COLUMNS = ("kappa", "clean", "drop, points", "objective", "gain over kappa 0, points (95%)", "p of a gain", "verdict")


def record(value: JsonValue) -> TuneResult:
    """Read a record from JSON values."""
    return TuneResult.from_json(value)


def section(result: TuneResult) -> Section:
    """Return the section: the recommendation, the chart, and a row for every kappa."""
    chosen = result.points[result.recommended]
    text = (
        f"Chosen on validation images: {chosen.description}. Reason: {result.reason}.",
        f"Objective: {result.measure}, on {result.attacked} images; clean accuracy on {result.samples} of "
        f"{result.data}.",
    )
    return Section(
        title="Trade-off over kappa",
        text=text,
        columns=COLUMNS,
        rows=rows(result),
        record=result,
        draw=lambda narrow: as_svg(
            draw(result, narrow=narrow), "Curves of clean accuracy and of the objective over kappa, with 95% bars"
        ),
        caption="Clean accuracy dashed with squares, the objective solid with dots; bars are 95% intervals, those of "
        "a perturbation of its gain over kappa 0.",
        finding=f"Tuning on validation images recommends {chosen.description}."
        if chosen.kappa != 0
        else "Tuning on validation images finds no kappa that helps significantly within the allowed loss of accuracy, "
        "and recommends kappa 0, which is ReLU.",
        models=(result.model,),
    )


def rows(result: TuneResult) -> tuple[tuple[str, ...], ...]:
    """Return a row of `COLUMNS` for every kappa."""
    return tuple(_row(result, place, point) for place, point in enumerate(result.points))


def _row(result: TuneResult, place: int, point: TunePoint) -> tuple[str, ...]:
    verdict = "recommended" if place == result.recommended else "" if point.allowed else "costs too much"
    return (
        point.label,
        percent(point.clean),
        points(point.drop),
        percent(point.objective),
        f"{points(point.gain)} ({points_interval(point)})",
        p_value(point.p_value),
        verdict,
    )
