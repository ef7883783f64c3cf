"""The pictures of the items, in the paper's layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jr_onnx.report.svg import DASHES, NARROW, CurveStyle, curve_style, error_bars, new_figure, reds
from jr_onnx.reproduce.attacks import JUMP, RELU
from jr_onnx.reproduce.pictures import Sheet
from jr_onnx.reproduce.result import Cell, ItemResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TICKS = ("0", "1", "2", "3", "5", "7", "10", "20", "40", "80")
"""The iterations that are written at the axis."""


def draw(result: ItemResult, sheets: Sequence[Sheet] = (), *, narrow: bool = False, title: bool = True) -> Figure:
    """Return the figure of an item; matplotlib's.

    Args:
        result: The item.
        sheets: The images of an item of pictures.
        narrow: Curves or a matrix for a phone.
        title: Write the title above curves or a matrix.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure: Figure
    if result.layout == "pictures":
        figure = _sheets(result, sheets)
    elif result.layout == "matrix":
        figure = _matrix(result, narrow=narrow)
    else:
        figure = _table(result) if result.layout == "table" else _curves(result, narrow=narrow)
    if title and result.layout in ("matrix", "curves"):
        figure.suptitle(result.title, fontsize=9)
    return figure


def text_of(cell: Cell | None, *, interval: bool = False) -> str:
    """Write a cell: paper / here, on request with its 95 % interval, and the images that survived a minimal attack."""
    if cell is None:
        return ""
    digits = 2 if cell.kind in ("accuracy", "auc") else 1
    paper = "" if cell.paper is None else f"{cell.paper:.{digits}f} / "
    if cell.here is None:
        left = "not measured" if cell.survived is None else f"{cell.survived:.1f} survive"
        return paper.removesuffix(" / ") or left
    behind = []
    if interval and cell.low is not None and cell.high is not None and math.isfinite(cell.low + cell.high):
        behind.append(f"{cell.low:.1f} to {cell.high:.1f}")
    if cell.survived is not None and cell.kind == "relative":
        behind.append(f"{cell.survived:.1f} survive")
    return f"{paper}{cell.here:.{digits}f}" + (f" ({', '.join(behind)})" if behind else "")


def _table(result: ItemResult) -> Any:
    columns = ["", *result.columns]
    texts = [[row, *(_stacked(result.at(row, column)) for column in result.columns)] for row in result.rows]
    longest = [max(len(line) for text in texts_of for line in text.split("\n"))
               for texts_of in zip(columns, *texts, strict=True)]  # fmt: skip
    widths = [0.075 * count + 0.25 for count in longest]  # inches, for characters of 7.5 points
    lines = [1, *(max(text.count("\n") + 1 for text in row) for row in texts)]
    heights = [0.14 * count + 0.16 for count in lines]
    figure: Any = new_figure(max(sum(widths), 4.5), sum(heights) + 0.55)
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(f"{result.title}\nper cent, paper / here (95 % interval)", loc="left", fontsize=9)
    if not texts:
        axes.text(0, 0.5, "\n".join(note for note in result.notes if "not measured" in note), fontsize=8, wrap=True)
        return figure
    table = axes.table(texts, colLabels=columns, colWidths=[width / sum(widths) for width in widths],
                       cellLoc="center", bbox=(0, 0, 1, 1), edges="horizontal")  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(7.5)
    for (row, column), cell in table.get_celld().items():
        cell.set_height(heights[row] / sum(heights))
        cell.set_linewidth(0.6)
        if column == 0:
            cell.set_text_props(ha="left")
            cell.PAD = 0.03
    return figure


def _stacked(cell: Cell | None) -> str:
    return text_of(cell, interval=True).replace(" (", "\n(").replace(", ", ",\n")


def _curves(result: ItemResult, *, narrow: bool) -> Any:
    kinds = {cell.row: cell.kind for cell in result.cells}
    if set(kinds.values()) == {"value"}:
        return _functions(result, narrow=narrow)
    figure: Any = new_figure(NARROW if narrow else 6.6, 3.4 + 0.22 * len(kinds) if narrow else 4.2)
    left = figure.subplots()
    right = left.twinx() if "relative" in kinds.values() and "accuracy" in kinds.values() else left
    lines = []
    styles = _styles(result)
    for row, style in styles.items():
        cells = [cell for column in result.columns if (cell := result.at(row, column)) is not None]
        at, here = [float(cell.column) for cell in cells], [_here(cell) for cell in cells]
        axes = right if kinds[row] == "relative" else left
        spans = error_bars(here, [(cell.low or 0.0, cell.high or 0.0) for cell in cells])
        name = f"{row}, right axis" if axes is not left else row
        lines.append(axes.errorbar(at, here, yerr=spans, markersize=4, capsize=2, linewidth=1.4, label=name, **style))
    _label_axes(result, left, right)
    figure.legend(handles=lines, loc="outside lower center", ncols=1 if narrow else 2, frameon=False, fontsize=8)
    return figure


def _here(cell: Cell | None) -> float:
    """Return what was measured; NaN where nothing was, which leaves a gap in a curve."""
    return math.nan if cell is None or cell.here is None else cell.here


def _styles(result: ItemResult) -> dict[str, CurveStyle]:
    """Return how a series is drawn, so that all differ without their colours too.

    Where series name a model and an attack, models differ in colour and mark, and attacks in their dash, and where
    there are more attacks than dashes in marks as well.
    """
    found = {}
    models = list(dict.fromkeys(row.partition(", ")[0] for row in result.rows))
    attacks = list(dict.fromkeys(row.partition(", ")[2] for row in result.rows))
    for number, row in enumerate(result.rows):
        model, _, attack = row.partition(", ")
        colour, dash, mark = number, number, number
        if attack:
            colour, dash = 1 + models.index(model), attacks.index(attack)
            mark = models.index(model) + len(models) * (dash // len(DASHES))
        found[row] = curve_style(colour, dash, mark)
    return found


def _functions(result: ItemResult, *, narrow: bool) -> Any:
    """Draw figure 3: the paper's panels (a) and (b), and the derivatives."""
    panels = {"(a) ReLU and swish": ("ReLU", "swish"), "(b) JumpReLU": ("JumpReLU",), "derivatives": ("derivative",)}
    at = np.array([float(column) for column in result.columns])
    figure: Any = new_figure(NARROW, 8.4) if narrow else new_figure(9.6, 3.4)
    grid = figure.subplots(3, 1) if narrow else figure.subplots(1, 3)
    for axes, (name, beginnings) in zip(grid, panels.items(), strict=True):
        for number, row in enumerate(item for item in result.rows if item.startswith(beginnings)):
            values = np.array([_here(result.at(row, column)) for column in result.columns])
            jumps = np.abs(np.diff(values)) > 0.5  # no line across a jump
            values = np.where(np.append(jumps, False), np.nan, values)
            style = {**curve_style(number, number, number), "marker": ""}  # a mark at every point would hide the line
            axes.plot(at, values, label=row, linewidth=1.6, **style)
        axes.set(xlabel="z", title=name)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False, fontsize=7, loc="upper left")
    return figure


def _label_axes(result: ItemResult, left: Any, right: Any) -> None:
    left.grid(alpha=0.25)
    left.set(ylabel="accuracy in per cent", ylim=(0, 102))
    left.set_xlabel("kappa" if result.item.startswith("figure-4") else "iterations, drawn at log(1 + n)")
    if not result.item.startswith("figure-4"):  # on CIFAR-10 most happens within ten iterations
        counts = [float(column) for column in result.columns]
        left.set_xscale("function", functions=(np.log1p, np.expm1))
        left.set_xticks(counts, [column if column in _TICKS else "" for column in result.columns])
        left.set_xlim(-0.1, 1.15 * max(counts))
    if right is not left:
        right.set_ylabel("mean relative perturbation in per cent (eq. 12)")
        right.set_ylim(bottom=0)


def _matrix(result: ItemResult, *, narrow: bool) -> Any:
    parts = list(dict.fromkeys(row.partition(":")[0] for row in result.rows))
    shape = (len(parts), 1) if narrow else (1, len(parts))
    side = NARROW if narrow else 4.4
    figure: Any = new_figure(side * shape[1], side * shape[0])
    for axes, part in zip(figure.subplots(*shape, squeeze=False).ravel(), parts, strict=True):
        rows = [row for row in result.rows if row.startswith(f"{part}:")]
        values = np.array([[getattr(result.at(row, column), "here", 0.0) for column in result.columns] for row in rows])
        axes.imshow(values, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if value > 60 else "#111111")  # fmt: skip
        axes.set_xticks(range(len(result.columns)), result.columns)
        axes.set_yticks(range(len(rows)), [row.rpartition(" ")[2] for row in rows])
        axes.set(xlabel="target kappa", ylabel="source kappa")
        axes.set_title(part, fontsize=9)
    return figure


def _sheets(result: ItemResult, sheets: Sequence[Sheet]) -> Any:
    if all(len(sheet.clean) == 1 for sheet in sheets):
        return _sums(result, sheets)
    count = max(len(sheet.clean) for sheet in sheets)
    rows = 1 + 4 * len(sheets)
    figure: Any = new_figure(2.4 + 0.9 * count, 0.5 + 0.95 * rows)
    grid = figure.subplots(rows, count, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.axis("off")
    _row(grid[0], "clean", sheets[0].clean)
    for number, sheet in enumerate(sheets):
        most = max(float(np.abs(images - sheet.clean).max()) for images in sheet.adversarial.values()) or 1.0
        for place, label in enumerate((RELU, JUMP)):
            first = 1 + 4 * number + 2 * place
            images = sheet.adversarial[label]
            _row(grid[first], f"{sheet.attack}\n{label}", images, failed=~sheet.fooled[label])
            _row(grid[first + 1], "perturbation", np.abs(images - sheet.clean).max(axis=1, keepdims=True), most)
    figure.suptitle(result.title, fontsize=9)
    return figure


def _sums(result: ItemResult, sheets: Sequence[Sheet]) -> Any:
    """Draw figure 1 as the paper does: clean image + perturbation = adversarial example, a network a row."""
    rows = [(sheet, label) for sheet in sheets for label in (RELU, JUMP)]
    figure: Any = new_figure(5.6, 0.6 + 1.5 * len(rows))
    grid = figure.subplots(len(rows), 3, squeeze=False)
    most = max(float(np.abs(sheet.adversarial[label] - sheet.clean).max()) for sheet, label in rows) or 1.0
    for axes, (sheet, label) in zip(grid, rows, strict=True):
        images = sheet.adversarial[label]
        sizes = np.abs(images - sheet.clean).max(axis=1, keepdims=True)
        _row(axes[:1], f"{sheet.attack}\n{label}", sheet.clean)
        _row(axes[1:2], "+", sizes, most)
        _row(axes[2:], "=", images, failed=~sheet.fooled[label])
        for panel in axes:
            panel.axis("off")
    for panel, title in zip(grid[0], ("clean", "perturbation", "adversarial"), strict=True):
        panel.set_title(title, fontsize=8)
    figure.suptitle(result.title, fontsize=9, wrap=True)
    return figure


def _row(axes: Any, title: str, images: Any, most: float | None = None, failed: Any = None) -> None:
    for place, (panel, image) in enumerate(zip(axes, images, strict=False)):
        picture = np.clip(np.moveaxis(np.asarray(image), 0, -1), 0, 1 if most is None else most)
        if most is not None:
            panel.imshow(picture[:, :, 0], cmap=reds(), vmin=0, vmax=most)
        elif picture.shape[2] == 1:
            panel.imshow(picture[:, :, 0], cmap="gray_r", vmin=0, vmax=1)
        else:
            panel.imshow(picture)
        if failed is not None and failed[place]:
            panel.text(0.9, 0.9, "×", transform=panel.transAxes, color="#b4442c", fontsize=12, ha="center", va="center")
    axes[0].text(-0.15, 0.5, title, transform=axes[0].transAxes, ha="right", va="center", fontsize=7.5)
