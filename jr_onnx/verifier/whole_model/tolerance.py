"""How far two correct evaluations of one model may be apart: a bound measured on the original, not chosen.

Rounding. A floating-point evaluation A of a network f gives f_A(x), the exact result of f with every weight changed
relatively by at most gamma_n = n u / (1 - n u), u the unit roundoff, n the length of the sums (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1). Another evaluation B (other kernels, another order of the sums)
gives another such perturbation. How much the outputs move depends on the network's conditioning, which no formula in u
knows; so it is measured, on the *original*, whose ReLU has no jump:

    e = max |original_A(x) - original_B(x)|            the same two evaluations, the same inputs
    p = max |original_A(x (1 + d)) - original_A(x)|    |d| <= u: inputs moved by one rounding

JumpReLU rounds nothing (it selects), so away from a jump the retrofit's error has the same source, the same kernels,
the same sums and operands of the same size: it is another draw of the same errors. For n independent errors of
standard deviation s, the largest of the control stays below s/4 with probability 0.20^n (1e-7 at n = 10 values
compared), and that of the retrofit exceeds 4 s with probability n * 6e-5. Hence

    bound = 16 max(e, p) + 8 u max|y|

The last term is for controls that happen to round alike: eight roundings of the output's own size (a bias, a
residual sum, a normalisation after the last sum). A model that is itself discontinuous (quantised steps) has a
large e, and its bound is honest about that; `Bound.relative` is printed so that a loose bound is not taken for proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.verifier.compare import Value, dtype_name, finite_difference, is_floating, magnitude

SAFETY: Final = 16.0
"""Factor between the largest error of one draw and that of another; derived above."""

FLOOR_ROUNDINGS: Final = 8.0

LOOSE: Final = 0.01
"""A bound beyond this part of the output's size proves little, and is reported as loose."""

UNIT_ROUNDOFF: Final = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


@dataclass(frozen=True)
class Bound:
    """A derived bound on the difference of one output.

    Attributes:
        value: Differences up to here are rounding.
        measured: The largest difference of the controls, without the safety factor.
        scale: The largest absolute value of the output.
    """

    value: float
    measured: float
    scale: float

    @property
    def relative(self) -> float:
        """The bound as a part of the output's size; 0 where both vanish."""
        return self.value / self.scale if self.scale else (0.0 if self.value == 0 else float("inf"))

    @property
    def is_loose(self) -> bool:
        """Whether the original itself rounds so differently that agreement within the bound proves little."""
        return self.relative > LOOSE


def unit_roundoff(dtype: str) -> float:
    """Return half the spacing of numbers at 1; 0 for types that do not round (integers, strings)."""
    return UNIT_ROUNDOFF.get(dtype, 0.0)


def rounding_bound(controls: Iterable[tuple[Value, Value]], *, working: str = "") -> Bound:
    """Derive the bound of one output from evaluations of the original.

    Args:
        controls: Pairs of that output from two evaluations of the original that differ by rounding alone.
        working: The coarsest type the network computes in, where that is not the output's own.

    Returns:
        The bound; its value is 0 if there is no control, so that nothing but equality passes.
    """
    measured = scale = 0.0
    roundoff = 0.0
    for one, other in controls:
        measured = max(measured, finite_difference(one, other))
        scale = max(scale, magnitude(one))
        dtype = dtype_name(one)
        if dtype in UNIT_ROUNDOFF:
            # An output that was cast to a finer type still carries the roundings of the working type.
            roundoff = max(unit_roundoff(dtype), unit_roundoff(working))
    return Bound(SAFETY * measured + FLOOR_ROUNDINGS * roundoff * scale, measured, scale)


def nudge(array: Array, generator: np.random.Generator) -> Array:
    """Move every element by about one rounding, up or down at random; other than floating arrays come back as is."""
    if not is_floating(array.dtype) or array.size == 0:
        return array
    # Drawn per element: next number above or below. Infinities and NaN stay.
    up = generator.random(array.shape) < 0.5
    if array.dtype.name == "bfloat16":
        wide = array.astype(np.float32)
        step = wide * np.float32(unit_roundoff("bfloat16"))
        moved = np.where(up, wide + step, wide - step).astype(array.dtype)
    else:
        target = np.where(up, np.inf, -np.inf).astype(array.dtype)
        with np.errstate(over="ignore"):
            moved = np.nextafter(array, target)
    return np.where(np.isfinite(array), moved, array).astype(array.dtype)
