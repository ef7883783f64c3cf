"""A table or figure of the paper, reproduced, as a section of a report."""

from __future__ import annotations

from jr_onnx.errors import InputError
from jr_onnx.records import JsonValue
from jr_onnx.report import Section
from jr_onnx.report.svg import as_svg
from jr_onnx.reproduce.drawing import draw, text_of
from jr_onnx.reproduce.result import ItemResult

_MOST_CELLS = 4096
"""Each is looked for among all; the largest item, figure 3, has 847."""
_DRAWN = {
    "matrix": "Rows are the kappa that the examples were made with, columns the kappa that they were shown to; figures "
    "are accuracies in per cent.",
    "curves": "Bars are 95% intervals.",
}


def record(value: JsonValue) -> ItemResult:
    """Read a record from JSON values.

    Raises:
        InputError: It is no such record, or its table is larger than any.
    """
    found = ItemResult.from_json(value)
    if max(len(found.cells), len(found.rows) * len(found.columns)) > _MOST_CELLS:
        raise InputError(
            f"{found.item} has {len(found.cells)} cells in a table of {len(found.rows)} rows and {len(found.columns)} "
            f"columns, expected at most {_MOST_CELLS}"
        )
    return found


def section(result: ItemResult) -> Section:
    """Return the section: the notes, the chart of a matrix or of curves, and the table.

    Pictures are left out: a report has its own, of its own model.
    """
    drawn = result.layout in _DRAWN
    functions = result.layout == "curves" and all(cell.kind == "value" for cell in result.cells)
    return Section(
        title=result.title,
        text=tuple(f"{note[:1].upper()}{note[1:]}." for note in result.notes),
        columns=() if functions else ("per cent" if drawn else "per cent: paper / here", *result.columns),
        rows=() if functions else tuple(
            (row, *(text_of(result.at(row, column)) for column in result.columns)) for row in result.rows
        ),
        record=result,
        draw=(lambda narrow: _chart(result, narrow=narrow)) if drawn else None,
        caption="" if functions else _DRAWN.get(result.layout, ""),
        models=(*(result.models or {}), *(result.models or {}).values()),
    )  # fmt: skip


def _chart(result: ItemResult, *, narrow: bool) -> str:
    return as_svg(draw(result, narrow=narrow, title=False), f"Chart: {result.title}")
