"""Values out of nothing: constants, ranges, fills; and the type conversions."""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from jr_onnx.torchnet.registry import Function, Node, op

_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)
_LOW_FOUR = 0xF
_LARGEST_INT4 = 7


@op("Constant")
def _constant(node: Node) -> Function:
    value = _constant_value(node)
    return lambda: value


def _constant_value(node: Node) -> Tensor:
    attributes = node.attributes
    tensor = attributes.get("value")
    if isinstance(tensor, Tensor):
        return tensor
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32)):
        if name in attributes:
            return node.precision.cast(torch.tensor(attributes[name], dtype=dtype))
    for name in ("value_int", "value_ints"):
        if name in attributes:
            return torch.tensor(attributes[name], dtype=torch.int64)
    raise node.refuse(f"a constant given as {', '.join(sorted(attributes)) or 'nothing'}")


@op("ConstantOfShape", host=(0,))
def _constant_of_shape(node: Node) -> Function:
    value = node.attr("value", torch.zeros(1, dtype=node.precision.override or torch.float32))
    sizes = node.list_input(0)
    scalar = value.reshape(())
    return lambda shape: scalar.expand(sizes(shape) or ())


@op("Range", host=(0, 1, 2))
def _range(node: Node) -> Function:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        dtype = start.dtype
        first, last, step = start.item(), limit.item(), delta.item()
        count = max(0, -int(-(last - first) // step))
        return (torch.arange(count, dtype=torch.float64) * step + first).to(dtype)

    return run


@op("EyeLike")
def _eye_like(node: Node) -> Function:
    wanted = node.integer("dtype")
    dtype = None if wanted is None else node.dtype(wanted)
    offset = node.attr("k", 0)

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=dtype or x.dtype, device=x.device)
        return ones.tril(offset).triu(offset)

    return run


@op("Cast")
def _cast(node: Node) -> Function:
    wanted = node.required("to")
    dtype = node.dtype(wanted)
    if wanted in _FOUR_BITS:
        return lambda x: _four_bits(x, dtype)
    return lambda x: _convert(x, dtype)


@op("CastLike")
def _cast_like(node: Node) -> Function:
    if node.element_type(1) in _FOUR_BITS:
        return lambda x, like: _four_bits(x, like.dtype)
    return lambda x, like: _convert(x, like.dtype)


def _four_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Keep the low four bits, read as signed or not: how casts to (U)INT4 wrap."""
    bits = x.to(torch.int64) & _LOW_FOUR
    if dtype == torch.int8:
        bits = torch.where(bits > _LARGEST_INT4, bits - _LOW_FOUR - 1, bits)
    return bits.to(dtype)


def _convert(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.dtype == dtype:
        return x
    if dtype == torch.bool:
        return x != 0
    if x.is_floating_point() and dtype in (torch.uint8, torch.int8, torch.int16):
        # Through int64, so that values beyond the narrow type wrap as in C instead of being undefined.
        return x.to(torch.int64).to(dtype)
    return x.to(dtype)


@op("Identity")
def _identity(node: Node) -> Function:
    del node
    return lambda x: x
