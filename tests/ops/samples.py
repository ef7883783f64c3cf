"""Element types and tensors that the tests of the kernels share."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

DTYPES: tuple[tuple[str, Any, Any], ...] = (
    ("float32", np.dtype(np.float32), np.dtype(np.uint32)),
    ("float64", np.dtype(np.float64), np.dtype(np.uint64)),
    ("float16", np.dtype(np.float16), np.dtype(np.uint16)),
    ("bfloat16", np.dtype(ml_dtypes.bfloat16), np.dtype(np.uint16)),
)
NAMES = [name for name, _, _ in DTYPES]


def corner_values(name: str, kappa: float) -> npt.NDArray[Any]:
    """NaNs of both signs and several payloads, infinities, zeros, subnormals, kappa's neighbours, the largest."""
    _, dtype, bits = next(item for item in DTYPES if item[0] == name)
    width = 8 * dtype.itemsize
    infinity = int(np.array(np.inf, dtype=dtype).view(bits))
    edge = int(np.array(kappa, dtype=dtype).view(bits))
    patterns = {0, 1, 2, infinity, infinity - 1, infinity + 1, (1 << (width - 1)) - 1}
    patterns |= {max(edge - 1, 0), edge, edge + 1}
    patterns |= {pattern | 1 << (width - 1) for pattern in patterns}
    return np.array(sorted(patterns), dtype=bits).view(dtype)


def sample(name: str, count: int, kappa: float, seed: int = 0) -> npt.NDArray[Any]:
    """Corners among random values, in an order that depends on the seed."""
    _, dtype, _ = next(item for item in DTYPES if item[0] == name)
    generator = np.random.default_rng(seed)
    corners = corner_values(name, kappa)
    values = np.concatenate([corners, (generator.standard_normal(count + 7) * 2).astype(dtype)])
    return generator.permutation(values)[:count].copy()
