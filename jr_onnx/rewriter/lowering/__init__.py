"""Lowerings: how J is written as ONNX nodes, one file each, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from jr_onnx.rewriter.lowering.base import Jump, Names, constant
from jr_onnx.rewriter.lowering.choose import Choice, Lowering, RequestedLowering, Setting, Target, choose
from jr_onnx.rewriter.lowering.custom import lower_custom
from jr_onnx.rewriter.lowering.log_step import lower_log_step
from jr_onnx.rewriter.lowering.thresholded import lower_thresholded
from jr_onnx.rewriter.lowering.where import lower_cast_mul, lower_where

LOWERINGS: dict[Lowering, Callable[[Jump, Names], list[onnx.NodeProto]]] = {
    "where": lower_where,
    "cast_mul": lower_cast_mul,
    "log_step": lower_log_step,
    "thresholded": lower_thresholded,
    "custom": lower_custom,
}

KEEPS_NAN: frozenset[str] = frozenset({"cast_mul", "log_step"})
"""Lowerings that give NaN for NaN, and may give -0.0 for 0."""

ONE_KAPPA: frozenset[str] = frozenset({"thresholded", "log_step"})
"""Lowerings that hold one number, and no kappa per channel."""

__all__ = [
    "KEEPS_NAN",
    "LOWERINGS",
    "ONE_KAPPA",
    "Choice",
    "Jump",
    "Lowering",
    "Names",
    "RequestedLowering",
    "Setting",
    "Target",
    "choose",
    "constant",
]
