"""The one definition of JumpReLU (paper, eq. 11), in NumPy, and the rounding of kappa to a tensor's dtype.

    J(z) = z if z > kappa else 0        strict >, kappa >= 0 and finite
    with a cap (ReLU6):  min(J(z), cap)

NaN maps to 0, -inf to 0, +inf to +inf (or the cap), -0.0 to +0.0: what the standard operator `ThresholdedRelu`
does. At kappa = 0 this is ReLU, value for value, on every input without NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from jr_onnx.element_types import FLOAT_DTYPES, LARGEST, Array, Element
from jr_onnx.errors import KappaError

OP_DOMAIN = "jr_onnx"
OP_TYPE = "JumpRelu"
OP_VERSION = 1
CHANNEL_AXIS = 1
"""The axis of a site's tensor (N, C, ...) that a kappa per channel belongs to."""
DRAW_OP_TYPE = "DrawKappa"
"""Operator without inputs that draws one kappa per run from the operating system's entropy."""
BIAS_OP_TYPE = "BiasJumpRelu"
"""Operator that adds a bias per channel, and another tensor if it is given one, and applies J to the sum."""
BLOCK_ATTRIBUTE = "channel_block"
"""Attribute of OP_TYPE: how many channels lie together where its operand is in ONNX Runtime's blocked layout."""

SiteKappa = float | tuple[float, ...]
"""The jump of a site: one for all of its tensor, or one for each channel, axis 1 of (N, C, ...)."""


def jump_relu(z: Array, kappa: SiteKappa, cap: float | None = None, rank: int | None = None) -> Array:
    """Apply JumpReLU to an array of any shape and floating dtype.

    Args:
        z: Pre-activations; (N, C, ...) with a kappa per channel.
        kappa: The jump, already representable in the dtype of `z` (see `round_kappa`).
        cap: Upper bound of ReLU6 and similar activations, or None.
        rank: The rank that a kappa per channel was made for, where it is not that of `z`: with 2, kappa lies along the
            last axis of `z`.

    Returns:
        A new array of the shape and dtype of `z`.
    """
    zero = np.zeros((), dtype=z.dtype)
    with np.errstate(invalid="ignore"):  # comparing NaN is the point: it yields False
        result = np.where(np.greater(z, kappa_array(kappa, rank or z.ndim, z.dtype)), z, zero)
    if cap is not None:
        result = np.minimum(result, np.asarray(cap, dtype=z.dtype))
    return result


def kappa_array(kappa: SiteKappa, rank: int, dtype: np.dtype[Element] | type[Element]) -> NDArray[Element]:
    """Return a kappa as an array that broadcasts over the tensor of its site.

    Args:
        kappa: One number, or one for each of C channels.
        rank: Rank of the site's tensor.
        dtype: Of the result.

    Returns:
        A scalar, or of shape (C, 1, ..., 1) with rank - 1 dimensions.
    """
    return np.asarray(kappa, dtype=dtype).reshape(kappa_dims(kappa, rank))


def kappa_dims(kappa: SiteKappa, rank: int | None) -> tuple[int, ...]:
    """Return the dimensions of `kappa_array`: () for one number.

    Raises:
        KappaError: There is a kappa per channel, and the tensor has no axis 1.
    """
    return channel_dims(len(kappa), rank) if isinstance(kappa, tuple) else ()


def channel_dims(count: int, rank: int | None) -> tuple[int, ...]:
    """Return the dimensions (C, 1, ..., 1) in which C kappas, one for each channel, broadcast over a tensor.

    Args:
        count: C.
        rank: Of the tensor.

    Raises:
        KappaError: The tensor has no axis 1.
    """
    if rank is None or rank < CHANNEL_AXIS + 1:
        raise KappaError(
            f"kappa has {count} values, one per channel, and a tensor of rank {rank} has no axis of channels",
            hint="Give one number",
        )
    return (count, *(1 for _ in range(rank - CHANNEL_AXIS - 1)))


def kappa_label(kappa: SiteKappa, digits: str = ".6g") -> str:
    """Return a kappa for people: a number, or the range and the number of its channels."""
    if not isinstance(kappa, tuple):
        return format(kappa, digits)
    count = len(kappa)
    if not count:  # only a damaged file has none
        return "per channel: none (0 channels)"
    return f"per channel: {min(kappa):{digits}} to {max(kappa):{digits}} ({count} channel{'s' if count != 1 else ''})"


def channels_of(kappa: SiteKappa) -> tuple[float, ...]:
    """Return all values of a kappa: one, or one for each channel."""
    return kappa if isinstance(kappa, tuple) else (kappa,)


def padded_to_blocks(kappas: tuple[float, ...], size: int) -> tuple[float, ...]:
    """Return the kappas of channels in blocks of `size`, with a 0 for every channel that fills the last block."""
    return (*kappas, *(0.0 for _ in range(-len(kappas) % size)))


def map_kappa(kappa: SiteKappa, function: Callable[[float], float]) -> SiteKappa:
    """Return a kappa whose every value went through a function."""
    return tuple(map(function, kappa)) if isinstance(kappa, tuple) else function(kappa)


def is_jump(kappa: SiteKappa) -> bool:
    """Return whether a kappa differs from ReLU's 0, in any channel."""
    return any(channels_of(kappa))


def one_kappa(kappa: SiteKappa, site_id: str, taker: str) -> float:
    """Return the kappa of a site where only one number is taken.

    Args:
        kappa: Of the site.
        site_id: Its id.
        taker: What takes one number, for the message.

    Raises:
        KappaError: It is one for each channel.
    """
    if isinstance(kappa, tuple):
        raise KappaError(
            f"site {site_id} has a kappa per channel ({len(kappa)} values), and {taker} takes one number for a site",
            hint="Rewrite the original with one kappa for the site",
        )
    return kappa


def validate_site_kappa(kappa: object, what: str = "kappa") -> SiteKappa:
    """Return the kappa of a site: a float, or a tuple of floats for a list, tuple or 1-D array.

    Raises:
        KappaError: A value is not a number, negative, NaN or infinite; there is none; or the values are nested.
    """
    # NumPy's arrays and scalars, and tensors of torch, have `tolist`.
    given: Any = kappa.tolist() if hasattr(kappa, "tolist") else kappa
    if not isinstance(given, list | tuple):
        return validate_kappa(given, what)
    if not given:
        raise KappaError(f"{what} is an empty list", hint="Give one number, or one for each channel")
    if any(isinstance(value, list | tuple | dict) for value in given):
        raise KappaError(
            f"{what} holds lists in a list", hint="Give one number, or a flat list of one for each channel"
        )
    return tuple(validate_kappa(value, f"{what}, channel {index},") for index, value in enumerate(given))


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


@overload
def round_kappa(kappa: float, dtype: str) -> float: ...
@overload
def round_kappa(kappa: tuple[float, ...], dtype: str) -> tuple[float, ...]: ...
@overload
def round_kappa(kappa: SiteKappa, dtype: str) -> SiteKappa: ...


def round_kappa(kappa: SiteKappa, dtype: str) -> SiteKappa:
    """Round kappa to the value a site of this dtype really compares with.

    A double site uses float64(float32(kappa)): ONNX attributes are float32, and every lowering of one plan must
    agree value for value.

    Args:
        kappa: The wanted jump, or one for each channel.
        dtype: One of `FLOAT_DTYPES`.

    Raises:
        KappaError: kappa is invalid, or overflows the dtype.
    """
    if isinstance(kappa, tuple):
        return tuple(
            _round_valid(validate_kappa(value, f"kappa of channel {index}"), dtype) for index, value in enumerate(kappa)
        )
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
