"""Operators of ONNX's first years in NumPy, for the reference evaluator: what a conversion of theirs is proved against.

The definitions are those of ONNX's operators.md before release 1.3: broadcasting along `axis` (operator sets below 7),
and the experimental operators ImageScaler, Affine, Scale, ScaledTanh, ParametricSoftplus and ThresholdedRelu.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.rewriter.legacy import DOMAIN

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "And": np.logical_and,
    "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater, "Less": np.less,
}  # fmt: skip


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), x.dtype))


_UNARY: dict[str, Callable[[Array, dict[str, Any]], Array]] = {
    "ImageScaler": lambda x, a: x * a.get("scale", 1.0) + np.reshape(a.get("bias", [0.0]), (-1, 1, 1)),
    "Affine": lambda x, a: x * a.get("alpha", 1.0) + a.get("beta", 0.0),
    "Scale": lambda x, a: x * a.get("scale", 1.0),
    "ScaledTanh": lambda x, a: a.get("alpha", 1.0) * np.tanh(a.get("beta", 1.0) * x),
    "ParametricSoftplus": lambda x, a: a.get("alpha", 1.0) * _softplus(a.get("beta", 1.0) * x),
    "ThresholdedRelu": lambda x, a: np.where(x > a.get("alpha", 1.0), x, 0.0),
}


def align(a: Array, b: Array, *, broadcast: bool, axis: int | None) -> Array:
    """Return b so that NumPy's broadcasting does what the attributes `broadcast` and `axis` of an old operator say."""
    if not broadcast or axis is None:
        return b
    start = axis if axis >= 0 else axis + a.ndim
    return b.reshape(b.shape + (1,) * (a.ndim - start - b.ndim))


def legacy_operators() -> list[type[OpRun]]:
    """Return the operators as the reference evaluator takes them, in the domain that `rewrite.legacy` moves them to."""
    from onnx.reference.op_run import OpRun

    def attributes(node: Any) -> dict[str, Any]:
        import onnx

        return {item.name: onnx.helper.get_attribute_value(item) for item in node.onnx_node.attribute}

    def binary(compute: Callable[[Array, Array], Array]) -> Callable[..., tuple[Array]]:
        def run(self: Any, a: Array, b: Array, **_: Any) -> tuple[Array]:
            given = attributes(self)
            return (compute(a, align(a, b, broadcast=bool(given.get("broadcast", 0)), axis=given.get("axis"))),)

        return run

    def unary(compute: Callable[[Array, dict[str, Any]], Array]) -> Callable[..., tuple[Array]]:
        def run(self: Any, x: Array, **_: Any) -> tuple[Array]:
            return (np.asarray(compute(x, attributes(self)), dtype=x.dtype),)

        return run

    bodies = {name: binary(compute) for name, compute in _BINARY.items()}
    bodies |= {name: unary(compute) for name, compute in _UNARY.items()}
    return [type(name, (OpRun,), {"op_domain": DOMAIN, "_run": body}) for name, body in bodies.items()]
