"""Lowerings: how J is written as ONNX nodes, one file each, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from jr_onnx.rewrite.lowering.base import Jump, Names, constant
from jr_onnx.rewrite.lowering.choose import Choice, Lowering, LoweringWish, Setting, Target, choose
from jr_onnx.rewrite.lowering.custom import lower_custom
from jr_onnx.rewrite.lowering.thresholded import lower_thresholded
from jr_onnx.rewrite.lowering.where import lower_cast_mul, lower_where

LOWERINGS: dict[Lowering, Callable[[Jump, Names], list[onnx.NodeProto]]] = {
    "where": lower_where,
    "cast_mul": lower_cast_mul,
    "thresholded": lower_thresholded,
    "custom": lower_custom,
}

__all__ = [
    "LOWERINGS",
    "Choice",
    "Jump",
    "Lowering",
    "LoweringWish",
    "Names",
    "Setting",
    "Target",
    "choose",
    "constant",
]
