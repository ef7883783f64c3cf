"""The budget of the attack in training: whole from the start, or growing as fast as the network can follow."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BEARABLE = 0.85
"""A growing budget grows only while the loss is below this share of that of a constant answer, the logarithm of the
number of classes; above it the budget shrinks. A network whose loss is higher is about to give a constant answer, from
which no gradient leads back."""


class GrowingBudget:
    """The share of the recipe's budget that the attack has.

    Args:
        classes: Number of classes.

    Attributes:
        share: The share now, 0 to 1.
    """

    def __init__(self, classes: int) -> None:
        self._bearable = _BEARABLE * math.log(classes)
        self._growth = 1.0
        self.share = 1.0

    def restart(self, steps: float) -> None:
        """Begin with the smallest share, to have grown to the whole budget after so many steps at the earliest."""
        self._growth = self.share = 1 / max(1.0, steps)

    def follow(self, losses: Sequence[float]) -> None:
        """Let the share grow, or shrink, after steps with these losses."""
        if self._growth < 1:
            change = len(losses) * self._growth
            bears = sum(losses) / len(losses) <= self._bearable
            self.share = min(1.0, max(self._growth, self.share + (change if bears else -change)))
