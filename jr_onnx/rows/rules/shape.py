"""Operators that lay the same entries out in another way, and those that compute with shapes.

A reshape keeps entries in their order: all rows come so many times one after the other, each time each of them with so
many entries. Afterwards they still do, and it only has to be found how they now lie along the one axis that holds the
batch: `(N, T, C) -> (N * T, C)` keeps T entries for each row together, `(T, N, C) -> (T * N, C)` has all rows T times.
`[-1, 64]` finds the rows again only where a row is known to have a multiple of 64 entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jr_onnx.rows.contents import axes_of
from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import rule
from jr_onnx.rows.rules.elementwise import joint
from jr_onnx.rows.size import BATCH, ONE, Size, product
from jr_onnx.rows.value import Block, Dims, NotProvedError, Value, changes, fixed, integers, known, numbers, rows


def relaid(value: Value, dims: Sequence[Size]) -> Value:
    """Return a value whose entries are laid out in other sizes, in their order.

    Raises:
        NotProvedError: The batch does not come to lie along one axis, in one piece.
    """
    changing = [axis for axis, size in enumerate(dims) if size.has_batch]
    if value.axis is None or value.dims is None:
        if changing:
            raise NotProvedError("it lays a value that is the same for all rows out along the rows")
        return fixed(tuple(dims))
    if not changing:
        raise NotProvedError("it reshapes the batch to a fixed size")
    if len(changing) > 1:
        raise NotProvedError("it spreads the batch over several axes")
    axis = changing[0]
    before = product(value.dims[: value.axis]) * value.block.lead
    lead = before.divided(product(dims[:axis]))
    each = None if lead is None else dims[axis].divided(lead * BATCH)
    if lead is None or each is None:
        raise NotProvedError("it merges the batch with other axes, or splits the rows")
    return rows(axis, Block(lead, each), dims)


@rule("Reshape", sizes=(1,))
def reshape(node: Node) -> Answer:
    """Rearrange entries; 0 copies a size, -1 is what is left."""
    node.only(0)
    value = node.value(0)
    listed = node.ints("shape")
    target = [Size(int(size)) for size in listed] if listed is not None else numbers(node.find(1))
    if target is None:
        return _to_unknown(node, value)
    dims: list[Size | None] = []
    for at, size in enumerate(target):
        if size is None:
            dims.append(node.fresh())
        elif size == Size(0) and not node.attr("allowzero", 0):
            dims.append(value.dims[at] if value.dims is not None and at < len(value.dims) else node.fresh())
        else:
            dims.append(None if size == Size(-1) else size)
    if dims.count(None) > 1:
        raise NotProvedError("its shape has -1 twice")
    return relaid(value, _completed(node, value, dims))


def _to_unknown(node: Node, value: Value) -> Value:
    if value.axis is not None:
        raise NotProvedError("the shape that it reshapes to is not known")
    shape = node.find(1)
    rank = shape.dims[0].number if shape is not None and shape.dims else None
    return fixed() if rank is None else fixed(tuple(node.fresh() for _ in range(rank)))


def _completed(node: Node, value: Value, dims: list[Size | None]) -> list[Size]:
    """Fill in the size that is left."""
    given = [size for size in dims if size is not None]
    if len(given) == len(dims):
        return given
    left = None if value.dims is None else product(value.dims).divided(product(given))
    if left is None:
        has_batch = value.axis is not None and not any(size.has_batch for size in given)
        if has_batch:
            raise NotProvedError("a row is not known to fill whole entries of what -1 stands for")
        left = node.fresh()
    return [left if size is None else size for size in dims]


@rule("Flatten")
def flatten(node: Node) -> Answer:
    """Lay entries out in two axes, cut in front of `axis`."""
    value = node.value(0)
    dims = node.same_rank(value)
    axis = int(node.attr("axis", 1))
    axis = axis if axis >= 0 else axis + len(dims)
    return relaid(value, (product(dims[:axis]), product(dims[axis:])))


@rule("Transpose")
def transpose(node: Node) -> Answer:
    """Put axes into another order."""
    value = node.value(0)
    dims = node.same_rank(value)
    order = [int(axis) for axis in node.attr("perm", range(len(dims) - 1, -1, -1))]
    if sorted(order) != list(range(len(dims))):
        raise NotProvedError(f"its perm {order} does not fit a value of rank {len(dims)}")
    turned = [dims[axis] for axis in order]
    return fixed(tuple(turned)) if value.axis is None else rows(order.index(value.axis), value.block, turned)


@rule("Squeeze")
def squeeze(node: Node) -> Answer:
    """Take away axes of one entry; without `axes` it depends on the sizes which ones."""
    node.only(0)
    value, axes = node.value(0), axes_of(node, 1)
    dims = node.same_rank(value)
    if axes is None:
        if value.axis is None:
            return fixed()
        raise NotProvedError("it takes away every axis of size 1, that of a single row included")
    gone = {node.spot(axis, len(dims)) for axis in axes}
    if value.axis in gone:
        raise NotProvedError("it takes away the axis of the batch")
    left = [size for axis, size in enumerate(dims) if axis not in gone]
    if value.axis is None:
        return fixed(tuple(left))
    return rows(value.axis - sum(axis < value.axis for axis in gone), value.block, left)


@rule("Unsqueeze")
def unsqueeze(node: Node) -> Answer:
    """Put in axes of one entry."""
    node.only(0)
    value, axes = node.value(0), axes_of(node, 1)
    dims = list(node.same_rank(value))
    if axes is None:
        raise NotProvedError("the axes that it puts in are not known")
    new = sorted(node.spot(axis, len(dims) + len(axes)) for axis in axes)
    place = value.axis
    for axis in new:
        dims.insert(axis, ONE)
        place = place + 1 if place is not None and axis <= place else place
    return fixed(tuple(dims)) if place is None else rows(place, value.block, dims)


@rule("Concat")
def concat(node: Node) -> Answer:
    """Put values behind each other along one axis."""
    return joined(node, node.given())


def joined(node: Node, values: Sequence[Value]) -> Value:
    """Return what comes of putting values behind each other."""
    ranks = {len(node.same_rank(value)) for value in values}
    if len(ranks) != 1:
        raise NotProvedError("its inputs have different ranks")
    rank = ranks.pop()
    axis = node.spot(int(node.attr("axis", 1)), rank)
    carrying = [value for value in values if value.axis is not None]
    total = _sum([(value.dims or ())[axis] for value in values], node)
    dims = [total if at == axis else size for at, size in enumerate(values[0].dims or ())]
    if not carrying:
        return fixed(tuple(dims))
    first = carrying[0]
    if len(carrying) < len(values):
        raise NotProvedError("it joins rows with a value that is the same for all")
    if any((value.axis, value.block) != (first.axis, first.block) for value in carrying):
        raise NotProvedError("the rows of its inputs lie along different axes")
    if axis == first.axis:
        raise NotProvedError("it joins values along the axis of the batch")
    return rows(axis=first.axis or 0, block=first.block, dims=dims)


def _sum(sizes: Sequence[Size], node: Node) -> Size:
    plain = [size.number for size in sizes]
    if any(size is None for size in plain):
        return node.fresh()
    return Size(sum(size for size in plain if size is not None))


@rule("Shape", sizes=(0,))
def shape(node: Node) -> Answer:
    """Give the sizes as numbers."""
    dims = node.same_rank(node.value(0))
    start, end = int(node.attr("start", 0)), int(node.attr("end", len(dims)))
    result = np.empty(len(dims[start:end]), dtype=object)
    result[:] = dims[start:end]
    return known(result)


@rule("Size", sizes=(0,))
def size_of(node: Node) -> Answer:
    """Give the number of entries."""
    result = np.empty((), dtype=object)
    result[()] = product(node.same_rank(node.value(0)))
    return known(result)


@rule("ConstantOfShape", sizes=(0,))
def constant_of_shape(node: Node) -> Answer:
    """Fill a shape with one number: with the batch in it, every row gets the same."""
    node.only()
    return _filled(node, numbers(node.value(0)))


def _filled(node: Node, target: list[Size | None] | None) -> Value:
    if target is None:
        return fixed()
    dims = tuple(node.fresh() if size is None else size for size in target)
    return _spread(dims)


def _spread(dims: Dims) -> Value:
    """Return a value whose rows all hold the same."""
    changing = [axis for axis, size in enumerate(dims) if size.has_batch]
    if not changing:
        return fixed(dims)
    each = dims[changing[0]].row
    if len(changing) > 1 or each is None:
        raise NotProvedError("it makes a shape that has the batch in it twice")
    return rows(changing[0], Block(each=each), dims)


@rule("Range")
def counted(node: Node) -> Answer:
    """Count from a number to a number, which are the same for all rows."""
    node.only()
    return fixed((node.fresh(),))


@rule("Expand", sizes=(1,))
def expand(node: Node) -> Answer:
    """Repeat axes of one entry until the shape is reached."""
    node.only(0)
    value, target = node.value(0), numbers(node.value(1))
    if target is None or value.dims is None:
        if value.axis is None:
            return fixed()
        raise NotProvedError("the shape that it expands to is not known")
    rank = max(len(value.dims), len(target))
    have = [ONE] * (rank - len(value.dims)) + list(value.dims)
    want = [ONE] * (rank - len(target)) + [node.fresh() if size is None else size for size in target]
    if value.axis is not None:
        return _expand_rows(node, value, have, want)
    for mine, theirs in zip(have, want, strict=True):
        if theirs.has_batch and mine != ONE:
            raise NotProvedError("it lays an axis of a value that is the same for all rows along the rows")
    return _spread(tuple(joint(pair, node.fresh) for pair in zip(have, want, strict=True)))


def _expand_rows(node: Node, value: Value, have: list[Size], want: list[Size]) -> Value:
    place = len(have) + value.from_end
    if want[place] not in (ONE, have[place]):
        raise NotProvedError("it expands the axis of the batch")
    if any(size.has_batch for at, size in enumerate(want) if at != place):
        raise NotProvedError("it repeats rows as often as there are rows")
    return rows(place, value.block, [joint(pair, node.fresh) for pair in zip(have, want, strict=True)])


@rule("Tile", sizes=(1,))
def tile(node: Node) -> Answer:
    """Repeat a value along its axes."""
    node.only(0)
    value, counts = node.value(0), numbers(node.value(1))
    dims = node.same_rank(value)
    if counts is None or len(counts) != len(dims):
        if value.axis is None:
            return fixed(tuple(node.fresh() for _ in dims))
        raise NotProvedError("how often it repeats is not known")
    repeats = [node.fresh() if count is None else count for count in counts]
    for axis, count in enumerate(repeats):
        if axis == value.axis and count != ONE:
            raise NotProvedError("it repeats the axis of the batch")
        if count.has_batch and (value.axis is not None or dims[axis] != ONE or count.row is None):
            raise NotProvedError("it repeats a value as often as there are rows")
    sizes = tuple(size * count for size, count in zip(dims, repeats, strict=True))
    return _spread(sizes) if value.axis is None else rows(value.axis, value.block, sizes)


@rule("Slice", sizes=(2,))
def cut(node: Node) -> Answer:
    """Take a part of some axes; of the batch only the whole, to its end or to as many as there are rows."""
    node.only(0)
    value = node.value(0)
    dims = list(node.same_rank(value))
    axes = _slice_axes(node, len(dims))
    if axes is None:
        ends = node.find(2)
        if value.axis is None and not (ends is not None and ends.sized):
            return fixed(tuple(node.fresh() for _ in dims))
        raise NotProvedError("the axes that it cuts are not known")
    for at, axis in enumerate(axes):
        if axis == value.axis:
            if not _takes_all(node, at, dims[axis]):
                raise NotProvedError("it cuts the axis of the batch")
        elif _end_changes(node, at):
            raise NotProvedError("it takes as many entries as there are rows from an axis that is not the batch's")
        else:
            dims[axis] = _cut_size(node, at, dims[axis])
    return fixed(tuple(dims)) if value.axis is None else rows(value.axis, value.block, dims)


def _slice_axes(node: Node, rank: int) -> list[int] | None:
    starts = node.ints("starts") or [] if node.version < 10 else None
    axes: Sequence[int] | None = axes_of(node, 3) if node.version >= 10 else node.ints("axes")
    if axes is None and (node.version < 10 or node.find(3) is None):
        length = node.find(1) if starts is None else None
        if starts is not None:
            axes = range(len(starts))
        elif length is not None and length.dims and length.dims[0].number is not None:
            axes = range(length.dims[0].number)
    return None if axes is None else [node.spot(int(axis), rank) for axis in axes]


def _bounds(node: Node, at: int) -> tuple[int | None, int | None, int | None]:
    """Return start, end and step of one axis, None for each that is not known."""
    if node.version < 10:
        return (node.ints("starts") or [])[at], (node.ints("ends") or [])[at], 1
    result = []
    for index in (1, 2, 4):
        given = integers(node.find(index))
        default = 1 if index == 4 and node.find(4) is None else None
        result.append(given[at] if given is not None and at < len(given) else default)
    return result[0], result[1], result[2]


def _takes_all(node: Node, at: int, size: Size) -> bool:
    start, end, step = _bounds(node, at)
    to_the_end = end is not None and end >= (1 << 31) - 1
    return start == 0 and step == 1 and (to_the_end or _end(node, at) == size)


def _end(node: Node, at: int) -> object:
    """Return the element that says where a cut ends, None where it is not known."""
    value = node.find(2)
    return value.elements[at] if value is not None and value.content is not None else None


def _end_changes(node: Node, at: int) -> bool:
    """Whether a cut ends where the number of rows says; with ends of opset 9, attributes, it cannot."""
    return node.version >= 10 and changes(_end(node, at))


def _cut_size(node: Node, at: int, size: Size) -> Size:
    bounds = _bounds(node, at)
    if size.number is None or any(bound is None for bound in bounds) or bounds[2] == 0:
        start, end, step = bounds
        return size if start == 0 and step == 1 and end is not None and end >= (1 << 31) - 1 else node.fresh()
    start, end, step = (int(bound or 0) for bound in bounds)
    if step < 0:
        return node.fresh()
    return Size(len(range(size.number)[start:end:step]))


@rule("Split")
def split(node: Node) -> Answer:
    """Cut a value into pieces along one axis."""
    node.only(0)
    value = node.value(0)
    dims = node.same_rank(value)
    axis = node.spot(int(node.attr("axis", 0)), len(dims))
    if axis == value.axis:
        raise NotProvedError("it cuts the axis of the batch")
    listed = node.ints("split")
    pieces = list(listed) if listed is not None else integers(node.find(1))
    whole = dims[axis].number
    if pieces is None and node.find(1) is None and whole is not None and whole % node.outputs == 0:
        pieces = [whole // node.outputs] * node.outputs
    result = []
    for index in range(node.outputs):
        piece = Size(int(pieces[index])) if pieces is not None and index < len(pieces) else node.fresh()
        sizes = tuple(piece if at == axis else size for at, size in enumerate(dims))
        result.append(fixed(sizes) if value.axis is None else rows(value.axis, value.block, sizes))
    return result


@rule("Trilu")
def trilu(node: Node) -> Answer:
    """Keep a triangle of the last two axes."""
    node.only(0)
    value = node.value(0)
    if value.axis is not None and value.from_end >= -2:
        raise NotProvedError("the rows lie along one of its last two axes")
    return Value(axis=value.axis, block=value.block, dims=value.dims)
