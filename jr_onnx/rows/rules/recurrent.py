"""Recurrent layers: the batch is the second axis of the sequences, or the first with layout=1."""

from __future__ import annotations

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import rule
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import ALONE, NotProvedError, Value, fixed, rows

_INITIAL = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}
_LENGTHS = 4


@rule("GRU", "LSTM", "RNN")
def recurrent(node: Node) -> Answer:
    """Run along the sequence of each row; initial states and lengths are by row too."""
    initial = _INITIAL[node.op]
    node.only(0, _LENGTHS, *initial)
    sequence = node.value(0)
    if sequence.axis is None:
        if any(value.axis is not None for value in node.given()):
            raise NotProvedError("its states hold rows, its sequence does not")
        return fixed()
    first = bool(node.attr("layout", 0))
    state_axis = 0 if first else 1
    if sequence.axis != state_axis or sequence.block != ALONE or sequence.rank != 3:
        raise NotProvedError("the rows do not lie along the axis of its batch")
    for index, axis in (*((index, state_axis) for index in initial), (_LENGTHS, 0)):
        value = node.find(index)
        if value is not None and (value.axis, value.block) != (axis, ALONE):
            raise NotProvedError(f"its input {node.names[index]!r} does not have the rows along axis {axis}")
    hidden = node.fresh() if "hidden_size" not in node.attributes else Size(node.integer("hidden_size"))
    directions = Size(2 if node.attr("direction", b"forward") == b"bidirectional" else 1)
    steps = (sequence.dims or ())[1 if first else 0]
    if first:
        return [rows(0, ALONE, (ONE, steps, directions, hidden)), *_states(0, (ONE, directions, hidden), node.outputs)]
    return [rows(2, ALONE, (steps, directions, ONE, hidden)), *_states(1, (directions, ONE, hidden), node.outputs)]


def _states(axis: int, dims: tuple[Size, ...], outputs: int) -> list[Value]:
    return [rows(axis, ALONE, dims) for _ in range(outputs - 1)]
