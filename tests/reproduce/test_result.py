from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from jr_onnx.reproduce.drawing import draw, text_of
from jr_onnx.reproduce.result import Cell, ItemResult, accuracy, mean


def _cell(paper: float | None, here: float, low: float, high: float, kind: str = "accuracy") -> Cell:
    return Cell("row", "column", kind, here, low, high, 100, paper)  # type: ignore[arg-type]  # a literal


@pytest.mark.parametrize(
    ("cell", "agrees"),
    [
        (_cell(90.2, 90.0, 89.9, 90.1), True),  # within 0.3 points
        (_cell(91.0, 90.0, 88.5, 91.2), True),  # within the interval
        (_cell(91.0, 90.0, 88.5, 90.9), False),
        (_cell(88.4, 90.0, 88.5, 90.9), False),
        (_cell(20.0, 18.1, 18.0, 18.2, "relative"), True),  # within a tenth
        (_cell(20.0, 17.9, 17.8, 18.0, "relative"), False),
        (_cell(None, 90.0, 88.5, 91.2), None),
        (_cell(72.5, 90.0, 88.5, 91.2, "auc"), None),  # the paper does not say of which network
    ],
)
def test_a_difference_is_judged_by_the_aim_or_the_interval(cell: Cell, agrees: bool | None) -> None:
    assert cell.agrees is agrees


def test_few_images_give_wide_intervals_that_hold_the_paper() -> None:
    hits = np.arange(20) < 16
    few, many = accuracy("r", "c", hits, 91.0), accuracy("r", "c", np.tile(hits, 100), 91.0)
    assert few.here == many.here == 80.0
    assert (few.agrees, many.agrees) == (True, False)
    sizes = np.array([0.1, 0.3])
    few, many = mean("r", "c", sizes, 25.0), mean("r", "c", np.tile(sizes, 1000), 25.0)
    assert (few.agrees, many.agrees) == (True, False)


def test_one_perturbation_has_no_interval_to_show() -> None:
    cell = mean("r", "c", np.array([0.2]), 25.0, survived=50.0)
    assert cell.high == math.inf
    assert text_of(cell, interval=True) == "25.0 / 20.0 (50.0 survive)"


def test_a_cell_is_written_with_its_interval_on_request() -> None:
    cell = mean("r", "c", np.array([0.1, 0.3]), survived=0.0)
    assert text_of(cell) == "20.0 (0.0 survive)"
    assert text_of(cell, interval=True) == "20.0 (0.4 to 39.6, 0.0 survive)"
    assert text_of(Cell("r", "c", "accuracy", None, None, None, 0, 98.8), interval=True) == "98.80"
    assert text_of(Cell("r", "c", "accuracy", None, None, None, 0)) == "not measured"
    assert text_of(mean("r", "c", np.array([]), survived=100.0)) == "100.0 survive"


def _result(layout: str, cells: list[Cell], columns: tuple[str, ...]) -> ItemResult:
    return ItemResult("figure-8a", "title", layout, columns, tuple(cells))  # type: ignore[arg-type]  # a literal


def test_curves_have_a_colour_for_each_model_and_a_dash_for_each_attack() -> None:
    rows = ("ReLU, step", "ReLU, ball", "JumpReLU, step", "JumpReLU, ball")
    cells = [Cell(row, at, "accuracy", 50.0, 40.0, 60.0, 9) for row in rows for at in ("0", "1")]
    figure = draw(_result("curves", cells, ("0", "1")))
    lines = {bars.get_label(): bars.lines[0] for bars in figure.axes[0].containers}
    looks = {name: (line.get_color(), line.get_linestyle()) for name, line in lines.items()}
    assert looks["ReLU, step"][0] == looks["ReLU, ball"][0] != looks["JumpReLU, step"][0]
    assert looks["ReLU, step"][1] == looks["JumpReLU, step"][1] != looks["ReLU, ball"][1]


def test_curves_differ_without_their_colours() -> None:
    rows = tuple(f"{model}, {attack}" for model in ("ReLU", "JumpReLU") for attack in "abcdef")
    cells = [Cell(row, at, "accuracy", 50.0, 40.0, 60.0, 9) for row in rows for at in ("0", "1")]
    for names in (rows, tuple(f"{number} curves" for number in range(7))):
        shown = [
            replace(cell, row=name) for cell, name in zip(cells, [n for n in names for _ in range(2)], strict=False)
        ]
        figure = draw(_result("curves", shown, ("0", "1")))
        lines = [bars.lines[0] for bars in figure.axes[0].containers]
        assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(names)


def test_a_curve_has_a_gap_where_nothing_was_measured() -> None:
    sizes = (np.array([0.1, 0.3]), np.array([]), np.array([0.2]))
    cells = [mean("size", str(number), found) for number, found in enumerate(sizes)]
    (bars,) = draw(_result("curves", cells, ("0", "1", "2"))).axes[0].containers
    shown = np.asarray(bars.lines[0].get_ydata(), dtype=np.float64)
    np.testing.assert_allclose(shown, [20.0, math.nan, 20.0])


def test_a_tables_picture_holds_all_its_text() -> None:
    columns = tuple(f"a column with a long name {number}" for number in range(6))
    cells = [Cell(row, column, "relative", 1.0, 0.5, 1.5, 9, 2.0, survived=3.0)
             for row in ("one", "a row with a rather long name") for column in columns]  # fmt: skip
    figure = draw(_result("table", cells, columns))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    frame = figure.bbox
    for cell in axes.tables[0].get_celld().values():
        box = cell.get_text().get_window_extent(canvas.get_renderer())
        assert frame.x0 - 1 <= box.x0 <= box.x1 <= frame.x1 + 1
