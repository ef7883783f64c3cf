"""Convolutions, pooling and resizing: images along the first axis, channels along the second."""

from __future__ import annotations

from collections.abc import Sequence

from jr_onnx.rows.contents import axes_of
from jr_onnx.rows.node import Answer, Node
from jr_onnx.rows.registry import BLOCKED, MICROSOFT, rule
from jr_onnx.rows.size import ONE, Size
from jr_onnx.rows.value import Dims, NotProvedError, Value, fixed, like, numbers, rows
from jr_onnx.semantics import BIAS_OP_TYPE, OP_DOMAIN


def images(node: Node, index: int = 0) -> Value:
    """Return the input that holds images, refusing rows along any axis but the first."""
    value = node.value(index)
    if value.axis not in (None, 0):
        raise NotProvedError("the rows do not lie along the first axis of its input")
    return value


def _result(value: Value, channels: Size, spatial: Sequence[Size]) -> Value:
    if value.dims is None:
        return fixed()
    return like(value, (value.dims[0], channels, *spatial))


def _windows(node: Node, dims: Dims, kernel: Sequence[int] | None) -> list[Size]:
    """Return the sizes after sliding a window over all axes but the first two."""
    count = len(dims) - 2
    plain = [size.number for size in dims[2:]]
    if kernel is None or len(kernel) != count or any(size is None for size in plain):
        return [node.fresh() for _ in range(count)]
    strides = list(node.attr("strides", ())) or [1] * count
    dilations = list(node.attr("dilations", ())) or [1] * count
    pads = list(node.attr("pads", ())) or [0] * (2 * count)
    auto = node.attr("auto_pad", b"NOTSET").decode()
    if not len(strides) == len(dilations) == count or len(pads) != 2 * count or min(strides) < 1:
        raise NotProvedError("its strides, dilations or pads do not fit its input")
    round_up = bool(node.attr("ceil_mode", 0))
    result = []
    for axis, size in enumerate(plain):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            result.append(Size(-(-int(size or 0) // strides[axis])))
            continue
        room = int(size or 0) - reach + (0 if auto == "VALID" else pads[axis] + pads[axis + count])
        # With ceil_mode, runtimes differ about a last window that lies wholly in the padding.
        exact = room % strides[axis] == 0 or not round_up
        result.append(Size(max(0, room // strides[axis] + 1)) if exact else node.fresh())
    return result


def _kernel(node: Node, weights: Value | None) -> list[int] | None:
    given = node.ints("kernel_shape")
    if given is not None:
        return given
    if weights is None or weights.dims is None:
        return None
    sizes = [size.number for size in weights.dims[2:]]
    plain = [size for size in sizes if size is not None]
    return plain if len(plain) == len(sizes) else None


def _convolve(node: Node, data: int, weights: int) -> Answer:
    node.only(data)
    value, kernel = images(node, data), node.value(weights)
    if value.dims is None or len(value.dims) < 2:
        return fixed()
    channels = kernel.dims[0] if kernel.dims else node.fresh()
    return _result(value, channels, _windows(node, value.dims, _kernel(node, kernel)))


@rule("Conv", "ConvInteger")
def conv(node: Node) -> Answer:
    """Convolve with weights that are the same for all rows; ConvInteger's zero points come after them."""
    if node.op == "ConvInteger":
        node.scalars((2,))
    return _convolve(node, 0, 1)


@rule("Conv", domain=BLOCKED)
@rule("FusedConv", domain=MICROSOFT)
def fused_conv(node: Node) -> Answer:
    """Convolve, add another tensor of the result's shape, and apply an activation."""
    node.only(0, 3)
    value, kernel, addend = images(node), node.value(1), node.find(3)
    if value.dims is None or len(value.dims) < 2:
        return fixed()
    if addend is not None and (addend.axis, addend.block) != (value.axis, value.block):
        raise NotProvedError("the rows of what it adds are not those of its input")
    # In the blocked layout the weights' first size is padded; nothing that follows computes with it.
    channels = node.fresh() if node.op == "Conv" or not kernel.dims else kernel.dims[0]
    return _result(value, channels, _windows(node, value.dims, _kernel(node, kernel)))


@rule(BIAS_OP_TYPE, domain=OP_DOMAIN)
def biased_jump(node: Node) -> Answer:
    """Add a bias along the channels and a tensor of the input's shape, and jump."""
    node.only(0, 2)
    value, addend = images(node), node.find(2)
    rank = len(node.same_rank(value))
    if value.axis is not None and node.spot(int(node.attr("axis", 1)), rank) == 0:
        raise NotProvedError("its bias lies along the rows")
    if addend is not None and (addend.axis, addend.block) != (value.axis, value.block):
        raise NotProvedError("the rows of what it adds are not those of its input")
    return like(value)


@rule("ReorderInput", "ReorderOutput", domain=BLOCKED)
def reorder(node: Node) -> Answer:
    """Lay channels out in blocks, padded to whole ones, or back; places stay."""
    node.only(0)
    value = images(node)
    if value.dims is None or len(value.dims) < 3:
        return fixed()
    last = bool(node.attr("channels_last", 0))
    if node.op == "ReorderInput":
        places = value.dims[1:-1] if last else value.dims[2:]
        return like(value, (value.dims[0], node.fresh(), *places))
    channels, places = Size(node.integer("channels")), value.dims[2:]
    return like(value, (value.dims[0], *((*places, channels) if last else (channels, *places))))


@rule("QLinearConv")
@rule("QLinearConv", domain=MICROSOFT)
def quantised_conv(node: Node) -> Answer:
    """Convolve quantised values: x, its scale and zero point, w, its scale and zero point, those of the result."""
    node.scalars((1, 2, 6, 7))
    if node.attr("channels_last", 0):
        node.only(0)
        value = images(node)
        return fixed() if value.dims is None else like(value, (value.dims[0], *(node.fresh() for _ in value.dims[1:])))
    return _convolve(node, 0, 3)


@rule("ConvTranspose")
def conv_transpose(node: Node) -> Answer:
    """Convolve the other way round."""
    node.only(0)
    value, kernel = images(node), node.value(1)
    if value.dims is None or len(value.dims) < 2:
        return fixed()
    group, columns = node.attr("group", 1), kernel.dims[1] if kernel.dims and len(kernel.dims) > 1 else None
    channels = node.fresh() if columns is None else Size(group) * columns
    return _result(value, channels, _opened(node, value.dims, _kernel(node, kernel)))


def _opened(node: Node, dims: Dims, kernel: Sequence[int] | None) -> list[Size]:
    """Return the sizes after a transposed convolution."""
    count = len(dims) - 2
    strides = list(node.attr("strides", ())) or [1] * count
    dilations = list(node.attr("dilations", ())) or [1] * count
    extra = list(node.attr("output_padding", ())) or [0] * count
    pads = list(node.attr("pads", ())) or [0] * (2 * count)
    is_open = "output_shape" in node.attributes or node.attr("auto_pad", b"NOTSET") != b"NOTSET"
    result = []
    for axis, size in enumerate(dims[2:]):
        if is_open or kernel is None or size.number is None:
            result.append(node.fresh())
            continue
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        cropped = pads[axis] + pads[axis + count]
        result.append(Size(max(0, strides[axis] * (size.number - 1) + extra[axis] + reach - cropped)))
    return result


@rule("AveragePool", "LpPool", "MaxPool")
@rule("AveragePool", "MaxPool", domain=BLOCKED)
def pool(node: Node) -> Answer:
    """Pool over windows. MaxPool's second output counts through the whole tensor, batch included."""
    node.only(0)
    value = images(node)
    if value.dims is None or len(value.dims) < 2:
        return fixed()
    if node.outputs > 1 and value.axis is not None:
        raise NotProvedError("its second output counts through the whole batch")
    return _result(value, value.dims[1], _windows(node, value.dims, _kernel(node, None)))


@rule("QLinearAveragePool", domain=MICROSOFT)
def quantised_pool(node: Node) -> Answer:
    """Pool quantised values: x, its scale and zero point, those of the result."""
    node.scalars(range(1, len(node.inputs)))
    value = images(node)
    if node.attr("channels_last", 0) and value.dims is not None:
        return like(value, (value.dims[0], *(node.fresh() for _ in value.dims[1:])))
    return pool(node)


@rule("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
@rule("GlobalAveragePool", "GlobalMaxPool", domain=BLOCKED)
@rule("QLinearGlobalAveragePool", domain=MICROSOFT)
def global_pool(node: Node) -> Answer:
    """Pool over whole images."""
    node.only(0)
    node.scalars(range(1, len(node.inputs)))
    value = images(node)
    if value.dims is None or len(value.dims) < 2:
        return fixed()
    if node.attr("channels_last", 0):
        return like(value, (value.dims[0], *(ONE for _ in value.dims[2:]), value.dims[-1]))
    return _result(value, value.dims[1], [ONE for _ in value.dims[2:]])


@rule("DepthToSpace", "SpaceToDepth")
def depth_and_space(node: Node) -> Answer:
    """Move blocks between channels and places."""
    value = images(node)
    if value.dims is None:
        return fixed()
    if len(value.dims) != 4:
        raise NotProvedError("its input is not a batch of images")
    batch, channels, *places = value.dims
    side = Size(node.integer("blocksize"))
    if node.op == "DepthToSpace":
        return like(value, (batch, channels.divided(side * side) or node.fresh(), *(side * size for size in places)))
    return like(value, (batch, channels * side * side, *(size.divided(side) or node.fresh() for size in places)))


@rule("Resize", "Upsample", sizes=(3,))
@rule("Upsample", domain=BLOCKED)
def resize(node: Node) -> Answer:
    """Resize images; the batch must keep its size."""
    node.only(0)
    value = node.value(0)
    if value.dims is None:
        return fixed()
    rank = len(value.dims)
    axes = [node.spot(int(at), rank) for at in node.attr("axes", range(rank))]
    factors, targets = _factors(node), None
    if node.op == "Resize" and node.version >= 11:
        targets = numbers(node.find(3))
    if node.attr("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        targets = None
    sizes = list(value.dims)
    for at, axis in enumerate(axes):
        sizes[axis] = _resized(node, sizes[axis], at, factors, targets)
    if value.axis is None:
        return fixed(tuple(sizes))
    _check_kept(node, value, axes, sizes)
    return rows(value.axis, value.block, sizes)


def _factors(node: Node) -> list[object] | None:
    """Return by how much it resizes, None where that is not known or sizes are given instead."""
    if "scales" in node.attributes:
        return list(node.attr("scales", ()))
    given = node.find(2 if node.op == "Resize" and node.version >= 11 else 1)
    if given is None or given.content is None or given.dims == (Size(0),):
        return None
    return given.elements


def _resized(
    node: Node, size: Size, at: int, factors: Sequence[object] | None, targets: Sequence[Size | None] | None
) -> Size:
    if factors is not None and at < len(factors):
        factor = factors[at]
        if factor == 1.0:
            return size
        if (
            isinstance(factor, float)
            and size.number is not None
            and (factor * size.number).is_integer()
            and factor * size.number < 1 << 24
        ):
            return Size(int(factor * size.number))
        return node.fresh()
    target = targets[at] if targets is not None and at < len(targets) else None
    return node.fresh() if target is None else target


def _check_kept(node: Node, value: Value, axes: Sequence[int], sizes: Sequence[Size]) -> None:
    """Refuse to resize the axis of the batch, or to crop it."""
    if value.axis is None or value.axis not in axes:
        return
    if node.attr("coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        raise NotProvedError("it may crop along the axis of the batch")
    if sizes[value.axis] != value.block.size:
        raise NotProvedError("it is not known to keep the size of the axis of the batch")


@rule("Pad")
def pad(node: Node) -> Answer:
    """Add entries before and after; the batch must get none."""
    node.only(0)
    value = node.value(0)
    if value.dims is None:
        return fixed()
    rank = len(value.dims)
    listed = node.ints("pads" if "pads" in node.attributes else "paddings")
    counts: list[Size | None] | None = (
        [Size(int(number)) for number in listed] if listed is not None else numbers(node.find(1))
    )
    axes = axes_of(node, 3)
    if axes is None and node.find(3) is not None:
        counts = None
    places = [node.spot(axis, rank) for axis in axes] if axes is not None else list(range(rank))
    if counts is None or len(counts) != 2 * len(places):
        if value.axis is not None:
            raise NotProvedError("how much it pads is not known")
        return fixed(tuple(node.fresh() for _ in value.dims))
    sizes = list(value.dims)
    for place, before, after in zip(places, counts, counts[len(places) :], strict=False):
        if before == after == Size(0):
            continue
        if place == value.axis:
            raise NotProvedError("it pads the axis of the batch")
        parts = [None if size is None else size.number for size in (sizes[place], before, after)]
        known = [part for part in parts if part is not None]
        sizes[place] = Size(sum(known)) if len(known) == len(parts) else node.fresh()
    return like(value, tuple(sizes))
