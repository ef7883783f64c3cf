"""A part of a report that is made of another command's result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jr_onnx.records import Record


@dataclass(frozen=True)
class Section:
    """What one result says.

    Attributes:
        title: Heading.
        text: Paragraphs.
        columns: Head of its table; empty for no table.
        rows: Its rows, as long as the head.
        record: The result.
        draw: Draws its chart as SVG text, given whether it is for a phone; None for no chart.
        caption: What the chart shows.
        finding: What it means for a decision, in one sentence; "" where it decides nothing.
        models: Names or SHA-256s of the model files that it is about, any of which identifies it; empty where the
            title says what it is about.
    """

    title: str
    text: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    record: Record
    draw: Callable[[bool], str] | None = None
    caption: str = ""
    finding: str = ""
    models: tuple[str, ...] = ()
