"""All results of a folder as one page in Markdown, in the order of the catalogue, with the pictures beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jr_onnx.records import load_file
from jr_onnx.report.texts import markdown_table
from jr_onnx.reproduce.attacks import JUMP, RELU
from jr_onnx.reproduce.catalogue import ITEMS, Item
from jr_onnx.reproduce.drawing import text_of
from jr_onnx.reproduce.result import ItemResult
from jr_onnx.reproduce.tables import ADAPTIVE


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
        "Made by `jr-onnx reproduce`. Cells are per cent: paper / here, and in brackets the 95 % interval of what was",
        "measured here. Adaptive columns have no counterpart in the paper.",
    ]
    records = {item: folder / f"{item.name}.json" for item in ITEMS}
    results = [load_file(ItemResult, record) for record in records.values() if record.is_file()]
    lines += _not_measured([item for item, record in records.items() if not record.is_file()])
    lines += _comparison(results)
    for result in results:
        lines += ["", *_section(result, folder, path)]
    lines += _networks(results)
    return "\n".join(lines) + "\n"


def _not_measured(items: Sequence[Item]) -> list[str]:
    """Return a paragraph that names the items without a record, except drawings with nothing to measure."""
    found = {kind: [item.number for item in items if item.kind == kind and item.maker] for kind in ("table", "figure")}
    texts = [f"{kind}s {', '.join(numbers)}" for kind, numbers in found.items() if numbers]
    if not texts:
        return []
    return ["", f"Not measured yet: {'; '.join(texts)}. `jr-onnx reproduce --list` says what can be made."]


def _comparison(results: Sequence[ItemResult]) -> list[str]:
    """Return a table of the adaptive columns of table 2: what the jump does against an attacker who knows it."""
    rows = []
    for result in results:
        if not result.item.startswith("table-2"):
            continue
        network = result.title.partition("; ")[2]
        for name in (row.removeprefix(f"{JUMP} ") for row in result.rows if row.startswith(f"{JUMP} ")):
            cells = [result.at(f"{label} {name}", ADAPTIVE) for label in (RELU, JUMP)]
            measured = [cell for cell in cells if cell is not None and cell.here is not None]
            if len(measured) == 2:
                images = str(measured[0].samples)
                texts = [text_of(cell, interval=True) for cell in measured]
                rows.append([network, name.strip("()"), images, *texts])
    if not rows:
        return []
    heading = ["network", "trained", "images", f"{RELU}, adaptive", f"{JUMP}, adaptive"]
    return ["", "## Against an attacker who knows the jump", "",
            "Accuracy in per cent, within the distance that the paper's PGD can move (adaptive column of table 2):",
            "", *markdown_table(heading, rows)]  # fmt: skip


def _section(result: ItemResult, folder: Path, path: Path) -> list[str]:
    lines = [f"## {result.title}", ""]
    picture = folder / f"{result.item}.png"
    if result.layout == "table":
        rows = [[row, *(text_of(result.at(row, column), interval=True) for column in result.columns)]
                for row in result.rows]  # fmt: skip
        lines += [*markdown_table(["", *result.columns], rows), "", *_judged(result)]
    elif picture.is_file():
        link = os.path.relpath(picture, path.parent)
        lines += [f"![{result.title}]({link})", ""]
    lines += [f"- {note}" for note in result.notes]
    if result.layout != "pictures":
        lines += _images(result)
    if result.sources:
        lines.append(f"- {', '.join(result.sources)}")
    lines.append(f"- {result.date}, {result.host}, {result.device}")
    return lines


def _judged(result: ItemResult) -> list[str]:
    """Return which cells differ from the paper's by more than the aim and the sampling error."""
    judged = [cell for cell in result.cells if cell.agrees is not None]
    if not judged:
        return []
    differing = [
        f"{cell.row}, {cell.column}: {cell.difference:+.1f}"
        for cell in judged
        if cell.agrees is False and cell.difference is not None
    ]
    by_chance = f"{len(judged)} compared with the paper, so that about {0.05 * len(judged):.1g} are expected by chance"
    return [f"Beyond the sampling error ({by_chance}): {'; '.join(differing) or 'none'}.", ""]


def _networks(results: Sequence[ItemResult]) -> list[str]:
    """Return the files behind the results: where they come from, and their digests."""
    found = {(name, source, (result.models or {}).get(name, ""))
             for result in results for name, source in (result.sources or {}).items()}  # fmt: skip
    if not found:
        return []
    rows = [(f"`{name}`", source, f"`{digest}`") for name, source, digest in sorted(found)]
    return ["", "## Networks", "", *markdown_table(("file", "source", "SHA-256"), rows)]


def _images(result: ItemResult) -> list[str]:
    """Return a line with the number of images, by column of a table where it differs."""
    found: dict[str, set[int]] = {}
    for cell in result.cells:
        if cell.samples:
            found.setdefault(cell.column if result.layout == "table" else "", set()).add(cell.samples)
    counts = {
        column: " to ".join(str(count) for count in sorted({min(some), max(some)})) for column, some in found.items()
    }
    if not counts:
        return []
    if len(set(counts.values())) == 1:
        return [f"- images: {next(iter(counts.values()))}"]
    columns: dict[str, list[str]] = {}
    for column, count in counts.items():
        columns.setdefault(count, []).append(column)
    return ["- images: " + "; ".join(f"{', '.join(names)}: {count}" for count, names in columns.items())]
