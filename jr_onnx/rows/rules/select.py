"""Looking entries up by number."""

from __future__ import annotations

from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import rule
from jr_onnx.rows.value import NotProvedError, fixed, like, rows


@rule("Gather")
def gather(node: Node) -> Answer:
    """Look entries up along one axis: of rows at places that are the same for all, or of a table at places by row."""
    data, indices = node.value(0), node.value(1)
    if data.axis is None and indices.axis is None and (data.dims is None or indices.dims is None):
        return fixed()
    sizes, places = node.same_rank(data), node.same_rank(indices)
    axis = node.spot(int(node.attr("axis", 0)), len(sizes))
    dims = (*sizes[:axis], *places, *sizes[axis + 1 :])
    if data.axis is not None and indices.axis is not None:
        raise NotProvedError("it looks entries up in rows, at places that come from rows")
    if indices.axis is not None:
        return rows(axis + indices.axis, indices.block, dims)
    if data.axis is None:
        return fixed(dims)
    if axis == data.axis:
        raise NotProvedError("it chooses among the rows of the batch")
    return rows(data.axis if data.axis < axis else data.axis + len(places) - 1, data.block, dims)


@rule("GatherElements")
def gather_elements(node: Node) -> Answer:
    """Look an entry up for each entry of the indices, at the same place except along one axis."""
    data, indices = node.value(0), node.value(1)
    if data.axis is None and indices.axis is None:
        return fixed(indices.dims)
    axis = node.spot(int(node.attr("axis", 0)), len(node.same_rank(data)))
    if (data.axis, data.block) != (indices.axis, indices.block) or axis == data.axis:
        raise NotProvedError("it does not look each row's entries up in that row")
    return like(indices)


@rule("OneHot")
def one_hot(node: Node) -> Answer:
    """Put in an axis with one entry switched on."""
    node.only(0)
    indices = node.value(0)
    dims = list(node.same_rank(indices))
    place = node.spot(int(node.attr("axis", -1)), len(dims) + 1)
    dims.insert(place, node.fresh())
    if indices.axis is None:
        return fixed(tuple(dims))
    return rows(indices.axis + (place <= indices.axis), indices.block, dims)
