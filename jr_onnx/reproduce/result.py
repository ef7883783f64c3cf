"""What an item gives: cells with the paper's value beside ours, written as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from jr_onnx.evaluation.statistics import Z95, wilson
from jr_onnx.modelfile import atomic_write
from jr_onnx.records import Record, dumps
from jr_onnx.report.svg import saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Layout = Literal["table", "curves", "matrix", "pictures"]
Kind = Literal["accuracy", "relative", "auc", "value"]
POINTS, PART = 0.3, 0.10
"""Aims for the authors' own weights: accuracies within 0.3 points, perturbations within 10 %, or the sampling error."""

_PICTURES: tuple[Literal["svg", "png"], ...] = ("svg", "png")


@dataclass(frozen=True, slots=True)
class Cell(Record):
    """One figure.

    Attributes:
        row: Row of the table, or series of the figure.
        column: Column of the table, or abscissa of the figure.
        kind: accuracy, relative (perturbation, paper eq. 12) and auc are in per cent.
        here: What was measured; None where nothing was (a quoted row).
        low: Lower end of the 95 % interval.
        high: Upper end.
        samples: Images behind it.
        paper: The paper's figure; None where it has none.
        adaptive: Whether the attack knows the defence, which the paper's do not.
        survived: For a perturbation: share of images that the attack did not fool, in per cent.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.reproduction_cell/1"
    row: str
    column: str
    kind: Kind
    here: float | None
    low: float | None
    high: float | None
    samples: int
    paper: float | None = None
    adaptive: bool = False
    survived: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.here is None or self.paper is None else self.here - self.paper

    @property
    def agrees(self) -> bool | None:
        """Whether the difference is within the aim or within the sampling error, whichever is larger.

        None where there is nothing to compare, and for an area (table 3), since the paper does not say what it is of.
        """
        if self.kind == "auc":
            return None
        if self.difference is None or self.low is None or self.high is None or self.paper is None or self.here is None:
            return None
        aim = PART * abs(self.paper) if self.kind == "relative" else POINTS
        sampling = (self.high - self.here) if self.difference < 0 else (self.here - self.low)
        return abs(self.difference) <= max(aim, sampling)


@dataclass(frozen=True, slots=True)
class ItemResult(Record):
    """One table or figure.

    Attributes:
        item: For instance table-1a.
        title: In words.
        layout: table, or curves (the column is a number), or matrix, or pictures.
        columns: In order.
        cells: Row by row.
        notes: What the reader should know.
        models: File name -> SHA-256.
        sources: File name -> where the weights come from.
        command: The command that made it.
        date: ISO.
        versions: Package -> version.
        host: Machine.
        device: Where torch computed.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.reproduction/1"
    item: str
    title: str
    layout: Layout
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    models: dict[str, str] | None = None
    sources: dict[str, str] | None = None
    command: str = ""
    date: str = ""
    versions: dict[str, str] | None = None
    host: str = ""
    device: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows in order."""
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    def at(self, row: str, column: str) -> Cell | None:
        """Return one cell."""
        return next((cell for cell in self.cells if (cell.row, cell.column) == (row, column)), None)


def accuracy(row: str, column: str, hits: npt.NDArray[np.bool_], paper: float | None = None, *, adaptive: bool = False) -> Cell:  # noqa: E501  # fmt: skip
    """Return a share of images (N,) with Wilson's 95 % interval."""
    count, total = int(np.sum(hits)), len(hits)
    low, high = wilson(count, total)
    share = 100 * count / total if total else 0.0
    return Cell(row, column, "accuracy", share, 100 * low, 100 * high, total, paper, adaptive)


def mean(
    row: str,
    column: str,
    sizes: npt.NDArray[np.float64],
    paper: float | None = None,
    *,
    survived: float | None = None,
    adaptive: bool = False,
) -> Cell:
    """Return the mean of relative perturbations (N,) with its normal 95 % interval (paper, eq. 12)."""
    total = len(sizes)
    if not total:
        return Cell(row, column, "relative", None, None, None, 0, paper, adaptive, survived)
    middle = 100 * float(np.mean(sizes))
    spread = 100 * Z95 * float(np.std(sizes, ddof=1)) / math.sqrt(total) if total > 1 else math.inf
    return Cell(row, column, "relative", middle, middle - spread, middle + spread, total, paper, adaptive, survived)


def write(result: ItemResult, figure: Figure | None, folder: Path) -> list[Path]:
    """Write ITEM.json, ITEM.csv and, with a figure of matplotlib's, ITEM.svg and ITEM.png; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": dumps(result).encode(), "csv": as_csv(result).encode()}
    if figure is not None:
        texts |= {form: saved(figure, form, dpi=110) for form in _PICTURES}
    paths = []
    for ending, content in texts.items():
        path = folder / f"{result.item}.{ending}"
        atomic_write(path, [content])
        paths.append(path)
    return paths


def as_csv(result: ItemResult) -> str:
    """Return the cells as CSV, one a line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ("row", "column", "kind", "paper", "here", "low", "high", "difference", "agrees", "samples", "adaptive", "survived")  # fmt: skip # noqa: E501 - a list of names
    writer.writerow(names)
    for cell in result.cells:
        values: Sequence[Any] = [getattr(cell, name) for name in names]
        writer.writerow(["" if value is None else f"{value:.6g}" if isinstance(value, float) else value for value in values])  # noqa: E501  # fmt: skip
    return stream.getvalue()
