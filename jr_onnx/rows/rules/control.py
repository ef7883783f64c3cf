"""Control flow. Which way it goes, and how often, must not come from the rows; then its bodies are followed.

A loop is followed until another iteration changes nothing: a size that differs between iterations becomes one that is
not known, and rows must lie along the same axis in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import rule
from jr_onnx.rows.size import Size
from jr_onnx.rows.value import NotProvedError, Value, fixed, rows

_ITERATIONS = 8


def _same(one: Value, other: Value) -> bool:
    return (one.axis, one.block, one.dims, one.sized) == (other.axis, other.block, other.dims, other.sized) and (
        one.content is other.content
    )


def _merged(node: Node, one: Value, other: Value) -> Value:
    """Return what is known of a value that is one or the other."""
    if one.sized or other.sized:
        if one.content is not None and other.content is not None and _equal_content(one, other):
            return one
        raise NotProvedError("it passes on a number that depends on the number of rows")
    if (one.axis, one.block) != (other.axis, other.block):
        raise NotProvedError("the rows lie along different axes, depending on the way it goes")
    if one.content is not None and other.content is not None and _equal_content(one, other):
        return one
    if one.dims is None or other.dims is None or len(one.dims) != len(other.dims):
        if one.axis is not None:
            raise NotProvedError("the rank of its result depends on the way it goes")
        return fixed()
    dims = [a if a == b else node.fresh() for a, b in zip(one.dims, other.dims, strict=True)]
    return fixed(tuple(dims)) if one.axis is None else rows(one.axis, one.block, dims)


def _equal_content(one: Value, other: Value) -> bool:
    if one.content is None or other.content is None or one.content.shape != other.content.shape:
        return False
    return all(a is not None and a == b for a, b in zip(one.elements, other.elements, strict=True))


def _check_choice(value: Value | None, what: str) -> None:
    if value is not None and (value.axis is not None or value.sized):
        raise NotProvedError(f"{what} depends on the batch")


@rule("If")
def if_(node: Node) -> Answer:
    """Follow the branch that is taken, or both where that is open."""
    condition = node.value(0)
    _check_choice(condition, "which way it goes")
    taken = None if condition.content is None else condition.elements[0]
    branches = [node.graph(name) for name in ("then_branch", "else_branch")]
    if isinstance(taken, bool):
        return node.run(branches[0 if taken else 1], [])
    one, other = (node.run(branch, []) for branch in branches)
    return [_merged(node, a, b) for a, b in zip(one, other, strict=True)]


def _widened(before: Value, after: Value, label: str) -> Value:
    """Return what is known of a value that a loop carries between iterations."""
    if before.sized or after.sized:
        if _equal_content(before, after):
            return before
        raise NotProvedError("it carries a number that depends on the number of rows")
    if (before.axis, before.block) != (after.axis, after.block):
        raise NotProvedError("the rows lie along different axes between iterations")
    if _equal_content(before, after):
        return before
    if before.dims is None or after.dims is None or len(before.dims) != len(after.dims):
        if before.axis is not None:
            raise NotProvedError("the rank of what it carries changes between iterations")
        return fixed()
    pairs = enumerate(zip(before.dims, after.dims, strict=True))
    dims = [a if a == b else Size(1, (f"{label}.{axis}",)) for axis, (a, b) in pairs]
    if before.content is None and list(before.dims) == dims:
        return before
    return fixed(tuple(dims)) if before.axis is None else rows(before.axis, before.block, dims)


def _settle(
    start: Sequence[Value], iteration: Callable[[list[Value]], list[Value]], label: str
) -> tuple[list[Value], list[Value]]:
    """Run a body on what it carries until that stays as it is; return it, and what the body gave last."""
    carried = list(start)
    for _ in range(_ITERATIONS):
        result = iteration(carried)
        pairs = zip(carried, result, strict=False)
        after = [_widened(a, b, f"{label}.{index}") for index, (a, b) in enumerate(pairs)]
        if all(_same(a, b) for a, b in zip(carried, after, strict=True)):
            return carried, result
        carried = after
    raise NotProvedError("what it carries between iterations does not settle")


@rule("Loop")
def loop(node: Node) -> Answer:
    """Follow the body of a loop whose number of turns is the same for all rows."""
    _check_choice(node.find(0), "how often it runs")
    _check_choice(node.find(1), "whether it goes on")
    body = node.graph("body")
    count = len(body.input) - 2
    start = [node.value(index + 2) for index in range(count)]

    def iteration(carried: list[Value]) -> list[Value]:
        result = node.run(body, [fixed(()), fixed(()), *carried])
        _check_choice(result[0], "whether it goes on")
        return result[1:]

    carried, last = _settle(start, iteration, f"loop.{node.fresh().names[0]}")
    return [_unrolled(node, value) for value in carried] + [_stacked(node, value, 0) for value in last[count:]]


def _unrolled(node: Node, value: Value) -> Value:
    """Return what a loop leaves behind, its sizes by names of their own where they may differ between iterations."""
    if value.dims is None or value.sized:
        return value
    dims = [size if size.number is not None or size.has_batch else node.fresh() for size in value.dims]
    return fixed(tuple(dims)) if value.axis is None else rows(value.axis, value.block, dims)


def _stacked(node: Node, value: Value, axis: int) -> Value:
    """Return the results of all turns, one behind the other along a new axis."""
    if value.sized:
        raise NotProvedError("it collects numbers that depend on the number of rows")
    if value.dims is None:
        return fixed()
    sizes = [size if size.number is not None or size.has_batch else node.fresh() for size in value.dims]
    place = node.spot(axis, len(sizes) + 1)
    sizes.insert(place, node.fresh())
    if value.axis is None:
        return fixed(tuple(sizes))
    return rows(value.axis + (place <= value.axis), value.block, sizes)


@rule("Scan")
def scan(node: Node) -> Answer:
    """Follow the body of a scan, which runs along an axis that is not the batch."""
    if node.version < 9:
        raise NotProvedError("it scans in the manner of opset 8")
    body, inputs = node.graph("body"), node.integer("num_scan_inputs")
    count = len(node.inputs) - inputs
    start = [node.value(index) for index in range(count)]
    axes = list(node.attr("scan_input_axes", [0] * inputs))
    pieces = [_piece(node, node.value(count + index), int(axes[index])) for index in range(inputs)]

    def iteration(carried: list[Value]) -> list[Value]:
        return node.run(body, [*carried, *pieces])

    carried, last = _settle(start, iteration, f"scan.{node.fresh().names[0]}")
    collected = last[count:]
    places = list(node.attr("scan_output_axes", [0] * len(collected)))
    return [_unrolled(node, value) for value in carried] + [
        _stacked(node, value, int(places[index])) for index, value in enumerate(collected)
    ]


def _piece(node: Node, value: Value, axis: int) -> Value:
    """Return one entry of a value that is scanned."""
    if value.dims is None:
        raise NotProvedError("the rank of what it scans is not known")
    place = node.spot(axis, len(value.dims))
    if place == value.axis:
        raise NotProvedError("it scans along the axis of the batch")
    dims = [size for at, size in enumerate(value.dims) if at != place]
    if value.axis is None:
        return fixed(tuple(dims))
    return rows(value.axis - (place < value.axis), value.block, dims)
