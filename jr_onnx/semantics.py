"""The one definition of JumpReLU (paper, eq. 11), in NumPy, and the rounding of kappa to a tensor's dtype.

    J(z) = z if z > kappa else 0        strict >, kappa >= 0 and finite
    with a cap (ReLU6):  min(J(z), cap)

NaN maps to 0, -inf to 0, +inf to +inf (or the cap), -0.0 to +0.0: what the standard operator `ThresholdedRelu`
does. At kappa = 0 this is ReLU, value for value, on every input without NaN.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from jr_onnx.element_types import FLOAT_DTYPES, LARGEST, Array
from jr_onnx.errors import KappaError

OP_DOMAIN = "jr_onnx"
OP_TYPE = "JumpRelu"
OP_VERSION = 1
DRAW_OP_TYPE = "DrawKappa"
BIAS_OP_TYPE = "BiasJumpRelu"
"""Operator without inputs that draws one kappa per run from the operating system's entropy."""


def jump_relu(z: Array, kappa: float, cap: float | None = None) -> Array:
    """Apply JumpReLU to an array of any shape and floating dtype.

    Args:
        z: Pre-activations.
        kappa: The jump, already representable in the dtype of `z` (see `round_kappa`).
        cap: Upper bound of ReLU6 and similar activations, or None.

    Returns:
        A new array of the shape and dtype of `z`.
    """
    zero = np.zeros((), dtype=z.dtype)
    with np.errstate(invalid="ignore"):  # comparing NaN is the point: it yields False
        result = np.where(z > np.asarray(kappa, dtype=z.dtype), z, zero)
    if cap is not None:
        result = np.minimum(result, np.asarray(cap, dtype=z.dtype))
    return result


def validate_kappa(kappa: float, what: str = "kappa") -> float:
    """Return kappa as a float, or refuse it.

    Raises:
        KappaError: kappa is not a number, negative, NaN or infinite.
    """
    if isinstance(kappa, bool | np.bool_):
        raise KappaError(f"{what} is {kappa!r}, expected a number >= 0")
    try:
        value = float(kappa)
    except (TypeError, ValueError):
        raise KappaError(f"{what} is {kappa!r}, expected a number >= 0") from None
    except OverflowError:
        raise KappaError(f"{what} is an integer beyond any float, expected a finite number >= 0") from None
    if math.isnan(value) or math.isinf(value) or value < 0:
        raise KappaError(f"{what} is {value}, expected a finite number >= 0")
    return value + 0.0  # -0.0 becomes 0.0


def round_kappa(kappa: float, dtype: str) -> float:
    """Round kappa to the value a site of this dtype really compares with.

    A double site uses float64(float32(kappa)): ONNX attributes are float32, and every lowering of one plan must
    agree value for value.

    Args:
        kappa: The wanted jump.
        dtype: One of `FLOAT_DTYPES`.

    Raises:
        KappaError: kappa is invalid, or overflows the dtype.
    """
    return _round_valid(validate_kappa(kappa), dtype)


@lru_cache(maxsize=4096)
def _round_valid(value: float, dtype: str) -> float:
    if dtype not in LARGEST:
        raise KappaError(f"kappa cannot be rounded to {dtype!r}, expected one of {', '.join(FLOAT_DTYPES)}")
    rounded = round_to(round_to(value, "float32"), dtype)
    limit = min(LARGEST[dtype], LARGEST["float32"])
    if math.isinf(rounded):
        raise KappaError(f"kappa {value} overflows {dtype}, whose largest value is {limit}")
    return rounded


def round_to(value: float, dtype: str) -> float:
    """Round a number to the nearest of a dtype, ties to even; infinite where it overflows.

    Args:
        value: Any number.
        dtype: One of `FLOAT_DTYPES`; bfloat16 rounds by way of float32.
    """
    with np.errstate(over="ignore", under="ignore"):
        if dtype == "float64":
            return float(value)
        if dtype == "bfloat16":
            return _round_bfloat16(np.float32(value))
        return float(np.float16(value) if dtype == "float16" else np.float32(value))


def largest(dtype: str) -> float:
    """Return the largest finite number of a dtype of `FLOAT_DTYPES`."""
    return LARGEST[dtype]


def _round_bfloat16(single: np.float32) -> float:
    """Round a float32 to the nearest bfloat16, ties to even."""
    if not np.isfinite(single):
        return float(single)
    bits = int(single.view(np.uint32))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return float(np.array(bits, dtype=np.uint32).view(np.float32))
