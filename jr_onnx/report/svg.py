"""Figures as SVG text that follows the page around it: its colours light, dark and printed, and its width."""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import OutputError, blaming, require
from jr_onnx.modelfile import atomic_path

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, ORIGINAL, RETROFIT, THIRD = "#30363d", "#6b7785", "#0b6fb8", "#8f5fb0"
"""Colours of lines and text, of the two models, and of any other."""

CYCLE = (INK, RETROFIT, "#b4442c", "#2d7a4b", THIRD, "#b07d12", ORIGINAL)
"""Colours of as many curves as there are, each with another line and mark."""

DASHES, SHAPES = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X")
"""The lines and marks of such curves."""

COLOURS = {"original": ORIGINAL, "retrofit": RETROFIT}
LINES = {"original": "--", "retrofit": "-"}
MARKS = {"original": "s", "retrofit": "o"}

_GRID = "#b0b0b0"
_VARIABLES = {
    "#000000": "ink",
    INK: "ink",
    ORIGINAL: "chart-original",
    RETROFIT: "chart-retrofit",
    THIRD: "chart-third",
    "#b4442c": "chart-red",
    "#2d7a4b": "chart-green",
    "#b07d12": "chart-ochre",
    _GRID: "line",
}
_PIXELS = 105
"""Of an inch of a figure at most, so that the text of small figures is no larger than that of large ones."""

NARROW = 3.7
"""Width in inches of a chart for a phone, some 330 pixels there: its text of 8 points is then 10 pixels high."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of matplotlib's; sizes in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, max(1.6, height)), layout="constrained")


class CurveStyle(TypedDict):
    """matplotlib's keywords of a curve."""

    color: str
    linestyle: str
    marker: str


def curve_style(colour: int, dash: int, mark: int) -> CurveStyle:
    """Return the style of a curve, from places in `CYCLE`, `DASHES` and `SHAPES`, which repeat."""
    return {
        "color": CYCLE[colour % len(CYCLE)],
        "linestyle": DASHES[dash % len(DASHES)],
        "marker": SHAPES[mark % len(SHAPES)],
    }


def saved(
    figure: Figure, form: Literal["svg", "png"], *, dpi: float | Literal["figure"] = "figure", transparent: bool = False
) -> bytes:
    """Return a figure as a file; no date, so that equal figures are equal files.

    Args:
        figure: The figure.
        form: The format.
        dpi: Dots per inch of the file; by default those of the figure.
        transparent: Leave the background out.
    """
    import matplotlib as mpl

    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "jr-onnx", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format=form, metadata=metadata, dpi=dpi, transparent=transparent)
    return stream.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file; the ending of the path says in which format.

    Raises:
        OutputError: The file cannot be written, or its format is unknown.
    """
    hint = "Use a name ending in .png or .svg"
    with blaming(f"cannot write the plot {path}", OutputError, hint=hint), atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150)


def in_per_cent(axis: Axis) -> None:
    """Label an axis of shares in per cent, as the tables are."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def error_bars(values: Sequence[float], spans: Sequence[tuple[float, float]]) -> npt.NDArray[np.float64]:
    """Return intervals (low, high) as matplotlib takes them: how far below and above the values (2, N)."""
    ends = [(max(0.0, value - low), max(0.0, high - value)) for value, (low, high) in zip(values, spans, strict=True)]
    return np.array(ends, dtype=np.float64).reshape(-1, 2).T


def as_svg(figure: Figure, description: str) -> str:
    """Return a figure as an SVG element that scales with the page; equal figures are equal text.

    Its colours are variables of the page's style sheet, with the colours of the figure where the page defines none. Its
    identifiers are its own, for a page holds several pictures.

    Args:
        figure: The figure.
        description: What a screen reader says in its place.
    """
    for axes in figure.axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    text = saved(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :]
    for attribute in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"(stroke|fill): (#[0-9a-f]{6})", _variable, text)
    own = f"c{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}", text)
    width = round(_PIXELS * figure.get_figwidth())
    head = f'<svg role="img" aria-label="{html.escape(description)}" style="max-width: {width}px"'
    return text.replace("<svg", head, 1)


def reds() -> Colormap:
    """Return the paper's colours of a perturbation; matplotlib's own begin with a light red in place of white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "white to dark red", ["#ffffff", "#fcae91", "#fb6a4a", "#cb181d", "#67000d"]
    )


def _variable(match: re.Match[str]) -> str:
    name = _VARIABLES.get(match[2])
    return match[0] if name is None else f"{match[1]}: var(--{name}, {match[2]})"
