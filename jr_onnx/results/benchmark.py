"""What a retrofit costs at run time as a section of a report."""

from __future__ import annotations

from jr_onnx.bench.plot import draw
from jr_onnx.bench.records import BenchReport, CaseResult, Row
from jr_onnx.records import JsonValue
from jr_onnx.report import Section
from jr_onnx.report.svg import as_svg

_COLUMNS = ("case", "variant", "session", "median", "99th percentile", "time relative to the original (95%)")


def record(value: JsonValue) -> BenchReport:
    """Read a record from JSON values."""
    return BenchReport.from_json(value)


def section(result: BenchReport) -> Section:
    """Return the section: where it was measured, the ratios, and a row for every variant in every case."""
    place = result.environment
    chip = place.cpu if place.gpu is None else f"{place.cpu}, {place.gpu}"
    kappa = "" if result.kappa is None else f", kappa {result.kappa:g}"
    text = (
        f"{result.model}, {result.sites} sites{kappa}; {chip}, {place.cores} cores, ONNX Runtime {place.onnxruntime}, "
        f"{place.date[:10]}. All variants ran in turn; a ratio below 1 is faster than the original.",
        *(f"{line[:1].upper()}{line[1:]}." for line in result.warnings),
    )
    return Section(
        title="Latency",
        text=text,
        columns=_COLUMNS,
        rows=tuple(_row(case, row) for case in result.cases for row in case.rows),
        record=result,
        draw=lambda narrow: as_svg(
            draw(result, narrow=narrow),
            "Bars of the time of every variant relative to the original, with 95% intervals",
        ),
        caption="Time relative to the original, which the line at 1 stands for, with 95% intervals.",
        finding=_finding(result),
        models=(result.model, result.model_sha256),
    )


def _finding(result: BenchReport) -> str:
    """Say what the fastest retrofit costs in every case."""
    retrofits = ([row for row in case.rows if row.session != "onnxruntime"] for case in result.cases)
    fastest = sorted((min(rows, key=lambda row: row.ratio) for rows in retrofits if rows), key=lambda row: row.ratio)
    if not fastest:
        return ""
    names = dict.fromkeys(row.variant for row in fastest)
    span = " to ".join(dict.fromkeys(f"{row.ratio:.2f}" for row in (fastest[0], fastest[-1])))
    return f"The fastest retrofit ({' or '.join(names)}) takes {span} times as long to run as the original."


def _row(case: CaseResult, row: Row) -> tuple[str, ...]:
    return (
        case.name,
        row.variant,
        row.session,
        f"{row.median_ms:.3g} ms",
        f"{row.p99_ms:.3g} ms",
        f"{row.ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f})",
    )
