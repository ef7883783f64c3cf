"""Input gradients of every differentiable operator: numerical differences in double precision against autograd."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from jr_onnx.torchnet.dtypes import Precision
from jr_onnx.torchnet.mean_draws import RANDOM_OPS
from jr_onnx.torchnet.registry import TABLE
from tests.torchnet.harness import evaluate, to_tensor
from tests.torchnet.node_cases import WRONG, by_operator, node_cases, outcome
from tests.torchnet.runtime_cases import CASES, Case

_DOUBLE = Precision(torch.float64)
_MOST_ELEMENTS = 100_000

# The derivative is zero almost everywhere or the result is not a number that depends smoothly on the input.
_FLAT = {
    "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Compress",
    "Constant", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf",
    "IsNaN", "Less", "LessOrEqual", "NonZero", "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign", "Size", "Xor",
}  # fmt: skip
# Straight-through rounding: the derivative is deliberately not that of the values; see test_quantize.py.
_STRAIGHT_THROUGH = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearAdd", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearMatMul", "QLinearMul", "QuantizeLinear",
}  # fmt: skip
# What they give is drawn and does not depend on their input; a mask of Dropout is differentiated by its own cases.
_DRAWN = set(RANDOM_OPS)
_DIFFERENTIABLE = sorted({name for domain, name in TABLE if domain == ""} - _FLAT - _STRAIGHT_THROUGH - _DRAWN)
_OWN_CASES = [case for case in CASES if case.operator not in _FLAT | _STRAIGHT_THROUGH]


def _gradcheck(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Compare with central differences; inputs were moved off kinks by a random shift well above eps."""
    checked: bool = torch.autograd.gradcheck(function, (x,), eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)
    return checked


def _smooth_point(x: Tensor) -> Tensor:
    """Shift every element by its own small amount, so that ties and integers (kinks) are left."""
    generator = torch.Generator().manual_seed(3)
    shift = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 0.02 + 0.003
    return (x.to(torch.float64) + shift).requires_grad_()


def _check_model(model: onnx.ModelProto, feeds: dict[str, Tensor]) -> bool:
    """Check the gradient in the first floating input; False where there is nothing to check."""
    name = next((key for key, value in feeds.items() if value.is_floating_point()), None)
    if name is None or not 0 < feeds[name].numel() <= _MOST_ELEMENTS:
        return False
    others = {key: _DOUBLE.cast(value) for key, value in feeds.items() if key != name}

    def function(x: Tensor) -> Tensor:
        results = evaluate(model, {**{key: feeds[key] for key in feeds}, **others, name: x}, precision=_DOUBLE)
        total = torch.zeros((), dtype=torch.float64)
        for weight, result in enumerate(results, start=1):
            if result.is_floating_point() and result.requires_grad and bool(torch.isfinite(result).all()):
                total = total + weight * torch.sin(result).sum()
        return total

    x = _smooth_point(feeds[name])
    if not function(x).requires_grad:
        return False
    return _gradcheck(function, x)


@pytest.mark.parametrize("operator", _DIFFERENTIABLE)
def test_gradient_equals_differences(operator: str) -> None:
    checked = 0
    for index in by_operator().get(operator, ()):
        case = node_cases()[index]
        if case.name in WRONG or outcome(index).kind != "passed" or checked == 4:
            continue
        (inputs, _), *_ = case.data_sets
        feeds = {}
        for value, item in zip(case.model.graph.input, inputs, strict=False):
            tensor = to_tensor(item, value.type.tensor_type.elem_type)
            assert tensor is not None
            feeds[value.name] = tensor
        checked += _check_model(case.model, feeds)
    if operator not in {case.operator for case in _OWN_CASES}:
        assert checked > 0, f"no case of {operator} could be differentiated"


@pytest.mark.parametrize("case", _OWN_CASES, ids=str)
def test_gradient_of_older_and_fused_forms(case: Case) -> None:
    first = case.inputs[0]
    assert first is not None
    assert first.dtype == np.float32
    tensor = to_tensor(first, onnx.TensorProto.FLOAT)
    assert tensor is not None
    small = first.size <= _MOST_ELEMENTS
    assert _check_model(case.model(), {"i0": tensor}) == (small and case.operator != "Cast")
