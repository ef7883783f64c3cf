"""The trade-off over kappa as a section of a report."""

from __future__ import annotations

from jr_onnx.evaluation.numbers import p_value, percent
from jr_onnx.records import JsonValue
from jr_onnx.report import Section
from jr_onnx.report.svg import as_svg
from jr_onnx.tune.plot import draw
from jr_onnx.tune.records import TunePoint, TuneResult

_COLUMNS = ("kappa", "clean accuracy", "drop", "objective", "gain over kappa 0 (95%)", "p of a gain", "verdict")


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
        columns=_COLUMNS,
        rows=tuple(_row(result, place, point) for place, point in enumerate(result.points)),
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


def _row(result: TuneResult, place: int, point: TunePoint) -> tuple[str, ...]:
    share = result.objective != "paper"
    verdict = "recommended" if place == result.recommended else "" if point.allowed else "costs too much"
    scale, unit, form = (100, "%", ".1f") if share else (1, "", ".3g")
    return (
        point.label,
        percent(point.clean),
        f"{100 * point.drop:+.1f}",
        f"{scale * point.objective:{form}}{unit}",
        f"{scale * point.gain:+{form}} ({scale * point.low:+{form}} to {scale * point.high:+{form}})",
        p_value(point.p_value),
        verdict,
    )
