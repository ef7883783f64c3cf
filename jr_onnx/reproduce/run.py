"""Make items one by one: those whose weights and data are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jr_onnx.reproduce.catalogue import State
from jr_onnx.reproduce.detection import detection
from jr_onnx.reproduce.drawing import draw
from jr_onnx.reproduce.figures import activations, iterations, matrix, trade_off
from jr_onnx.reproduce.measuring import Bench, UnfinishedError
from jr_onnx.reproduce.pictures import Sheet, pictures
from jr_onnx.reproduce.result import ItemResult, write
from jr_onnx.reproduce.tables import Table


def reproduce(bench: Bench, wanted: Sequence[State]) -> Iterator[tuple[State, ItemResult | None, list[Path]]]:
    """Make items and write OUT/ITEM.json, .csv, .svg and .png.

    Args:
        bench: Data, sizes, output folder.
        wanted: What to make; items that cannot be made are skipped.

    Yields:
        The item with its state, its result and the files; None where other shards have yet to do their part.

    Raises:
        JrError: A network or the data cannot be used.
        MissingExtraError: matplotlib or scikit-learn is not installed.
    """
    for state in wanted:
        if state.reason:
            continue
        try:
            result, sheets = make(bench, state)
        except UnfinishedError:
            yield state, None, []
            continue
        yield state, result, write(result, draw(result, sheets), bench.out)


def make(bench: Bench, state: State) -> tuple[ItemResult, list[Sheet]]:
    """Measure one item."""
    item = state.item
    if item.maker == "activations":
        return activations(bench), []
    if item.maker == "pictures":
        return pictures(bench, state.checkpoints[0], int(item.number))
    if item.maker in ("gray", "white", "random"):
        table = Table(bench, state.checkpoints)
        return {"gray": table.gray, "white": table.white, "random": table.drawn}[item.maker](), []
    makers = {"detection": detection, "trade-off": trade_off, "matrix": matrix, "iterations": iterations}
    return makers[str(item.maker)](bench, state.checkpoints[0]), []
