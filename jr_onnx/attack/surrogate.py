"""The choice of a backward pass for JumpReLU sites, by name.

| name | derivative of a site |
|---|---|
| exact | the mask z > kappa: what autograd gives, and what hides the jump from an attack |
| straight-through | that of ReLU |
| smooth:B | that of z * sigmoid(beta (z - kappa)), beta * kappa = B: it sees the gain of crossing the jump |
"""

from __future__ import annotations

import math

from jr_onnx.errors import InputError
from jr_onnx.torchnet.jump import SiteBackward

SMOOTH_GRID = (1.0, 2.0, 5.0, 10.0)
"""Values of beta * kappa to try; the best one differs from network to network."""


def parse_backward(text: str | SiteBackward) -> SiteBackward:
    """Read "exact", "straight-through" or "smooth:B".

    Raises:
        InputError: The text is none of these, or B is not a positive number.
    """
    if isinstance(text, SiteBackward):
        return text
    kind, _, number = text.partition(":")
    if text == "exact":
        return SiteBackward.exact()
    if text == "straight-through":
        return SiteBackward.straight_through()
    if kind == "smooth":
        try:
            sharpness = float(number)
        except ValueError:
            sharpness = math.nan
        if math.isfinite(sharpness) and sharpness > 0:
            return SiteBackward.smooth(sharpness)
    raise InputError(
        f"the backward pass is {text!r}, expected exact, straight-through or smooth:B with B > 0",
        hint="B is beta times kappa; try smooth:5",
    )


def adaptive_backwards() -> tuple[str, ...]:
    """Return every backward pass that an adaptive evaluation tries."""
    return ("exact", "straight-through", *(f"smooth:{value:g}" for value in SMOOTH_GRID))
