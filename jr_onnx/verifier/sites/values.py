"""The values a site is tried with: the jump and its neighbours, everything special, and random ones.

For the 16-bit types these are all 65 536 values there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jr_onnx.element_types import Array, numpy_dtype

_BITS: dict[str, Any] = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}
_NEIGHBOURS = 64


def probe_values(dtype: str, marks: list[float], count: int, generator: np.random.Generator) -> Array:
    """Return values (N,) to try a site with.

    Args:
        dtype: NumPy name of the site's type.
        marks: Where something happens: kappa, the cap; each comes with its nearest neighbours on both sides.
        count: How many random ones; the 16-bit types are tried with all their values instead.
        generator: Draws the random ones.
    """
    kind = numpy_dtype(dtype)
    bits = _BITS[dtype]
    if np.dtype(bits).itemsize == 2:
        every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
        return every.view(kind)
    info = np.finfo(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0]
    special += [
        sign * value for value in map(float, (info.max, info.tiny, info.smallest_subnormal)) for sign in (1.0, -1.0)
    ]
    parts = [np.array(special, dtype=kind)]
    for mark in marks:
        parts.extend(_around(mark, kind, bits))
    scale = next((mark for mark in marks if mark > 0), 1.0)
    parts.append(generator.standard_normal(count).astype(kind))
    parts.append((generator.standard_normal(count) * 2 * scale).astype(kind))
    # Random bit patterns reach every exponent, subnormals and NaNs with payloads among them.
    parts.append(generator.integers(0, np.iinfo(bits).max, count, dtype=bits, endpoint=True).view(kind))
    return np.concatenate(parts)


def _around(mark: float, kind: np.dtype[np.generic], bits: Any) -> list[Array]:
    """Return the mark, its negative and their neighbours, by counting bit patterns up and down."""
    centre = np.array(mark, dtype=kind)
    if not np.isfinite(centre):
        return []
    pattern = int(centre.view(bits))
    near = [pattern + step for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1) if pattern + step >= 0]
    above = np.array(near, dtype=bits).view(kind)
    return [above, -above]
