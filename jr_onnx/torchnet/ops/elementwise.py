"""Arithmetic, comparison, logic and the plain mathematical functions, with NumPy broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from onnx import TensorProto
from torch import Tensor

from jr_onnx.element_types import type_name
from jr_onnx.torchnet.registry import Function, Node, op

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # halves to even, as ONNX asks
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


@op(*_UNARY)
def _unary(node: Node) -> Function:
    return _UNARY[node.op_type]


@op(*_BINARY)
def _binary(node: Node) -> Function:
    return _BINARY[node.op_type]


@op("Div")
def _div(node: Node) -> Function:
    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.is_floating_point() or b.is_floating_point():
            return torch.div(a, b)
        return torch.div(a, b, rounding_mode="trunc")  # C's integer division, which runtimes use

    return run


@op("Pow")
def _pow(node: Node) -> Function:
    exponent = node.const(1)
    if exponent is not None and exponent.numel() == 1 and exponent.dim() == 0:
        number = exponent.item()
        # A number lets torch pick x*x, sqrt and so on; the result keeps the base's type.
        return lambda a, _: torch.pow(a, number).to(a.dtype)
    return lambda a, b: torch.pow(a, b).to(a.dtype)


@op("Mod")
def _mod(node: Node) -> Function:
    return torch.fmod if node.attr("fmod", 0) else torch.remainder


@op("Max")
def _max(node: Node) -> Function:
    return lambda *items: reduce(torch.maximum, items)


@op("Min")
def _min(node: Node) -> Function:
    return lambda *items: reduce(torch.minimum, items)


@op("Sum")
def _sum(node: Node) -> Function:
    return lambda *items: reduce(torch.add, items)


@op("Mean")
def _mean(node: Node) -> Function:
    return lambda *items: reduce(torch.add, items) / len(items)


@op("Where")
def _where(node: Node) -> Function:
    return torch.where


@op("IsInf")
def _isinf(node: Node) -> Function:
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    if positive and negative:
        return torch.isinf
    if positive:
        return lambda x: x == math.inf
    if negative:
        return lambda x: x == -math.inf
    return lambda x: torch.zeros_like(x, dtype=torch.bool)


@op("BitwiseNot")
def _bitwise_not(node: Node) -> Function:
    if node.element_type(0) in (TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64):
        raise node.refuse(f"element type {type_name(node.element_type(0))}, which is computed in int64")
    return torch.bitwise_not


@op("BitShift")
def _bit_shift(node: Node) -> Function:
    if node.attr("direction", "") == "LEFT":
        return torch.bitwise_left_shift
    return torch.bitwise_right_shift
