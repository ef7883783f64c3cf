"""All results of a folder as one page in Markdown, in the order of the catalogue, with the pictures beside them."""

from __future__ import annotations

import os
from pathlib import Path

from jr_onnx.records import load_file
from jr_onnx.reproduce.catalogue import ITEMS
from jr_onnx.reproduce.drawing import text_of
from jr_onnx.reproduce.result import ItemResult


def page(folder: Path, path: Path) -> str:
    """Return the page.

    Args:
        folder: Holds the records that `jr-onnx reproduce` wrote.
        path: Where the page will lie: links to pictures start there.

    Raises:
        InputError: A record cannot be read.
    """
    lines = [
        "# The paper's tables and figures, measured again",
        "",
        "Made by `jr-onnx reproduce`. Cells are per cent, paper / here; adaptive columns have no counterpart in the",
        "paper. `jr-onnx reproduce --list` says what else can be made.",
    ]
    for item in ITEMS:
        record = folder / f"{item.name}.json"
        if record.is_file():
            lines += ["", *_section(load_file(ItemResult, record), folder, path)]
    return "\n".join(lines) + "\n"


def _section(result: ItemResult, folder: Path, path: Path) -> list[str]:
    lines = [f"## {result.title}", ""]
    picture = folder / f"{result.item}.png"
    if result.layout == "table":
        lines += [_row(["", *result.columns]), _row(["---"] * (len(result.columns) + 1))]
        lines += [_row([row, *(text_of(result.at(row, column)) for column in result.columns)]) for row in result.rows]
        lines.append("")
        differing = [
            f"{cell.row}, {cell.column}: {cell.difference:+.1f}"
            for cell in result.cells
            if cell.agrees is False and cell.difference is not None
        ]
        known = any(cell.agrees is not None for cell in result.cells)
        if known:
            lines += [f"Beyond the sampling error: {'; '.join(differing) or 'nothing'}.", ""]
    elif picture.is_file():
        link = os.path.relpath(picture, path.parent)
        lines += [f"![{result.title}]({link})", ""]
    samples = sorted({cell.samples for cell in result.cells if cell.samples})
    lines += [f"- {note}" for note in result.notes]
    if samples and result.layout != "pictures":
        each = " (by column; the CSV file has each)" if len(samples) > 1 else ""
        lines.append(f"- images: {', '.join(str(count) for count in samples)}{each}")
    for name, source in (result.sources or {}).items():
        lines.append(f"- {name}: {source}; SHA-256 {(result.models or {}).get(name, '')}")
    lines.append(f"- {result.date}, {result.host}, {result.device}")
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
