"""Sizes as the proof knows them: a number times named numbers, for instance `3 * batch * x.2`.

`batch` is the number of rows in a run. Every other name stands for a number that the batch does not change: a size
that the file leaves open, or one that the proof does not compute. So two equal sizes are equal in every run, and two
different ones may still be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Size:
    """An integer times named numbers.

    Attributes:
        factor: The integer; negative or 0 in a computation of sizes, never as a size.
        names: The named numbers, sorted, each as often as it is a factor.
    """

    factor: int
    names: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """The value, where it is a plain number."""
        return None if self.names and self.factor else self.factor

    @property
    def has_batch(self) -> bool:
        """Whether it changes with the batch."""
        return _BATCH in self.names and self.factor != 0

    @property
    def row(self) -> Size | None:
        """What is left for one row; None where it is not the batch, once, times something."""
        return None if self.names.count(_BATCH) != 1 else self.divided(BATCH)

    def __mul__(self, other: Size) -> Size:
        """Multiply."""
        factor = self.factor * other.factor
        return Size(factor, tuple(sorted(self.names + other.names)) if factor else ())

    def divided(self, other: Size) -> Size | None:
        """Divide where it goes out for every value of the names, else None."""
        if other.factor == 0 or self.factor % other.factor:
            return None
        if self.factor == 0:
            return self
        mine, theirs = Counter(self.names), Counter(other.names)
        if theirs - mine:
            return None
        return Size(self.factor // other.factor, tuple(sorted((mine - theirs).elements())))


ONE = Size(1)
BATCH = Size(1, (_BATCH,))


def product(sizes: Iterable[Size]) -> Size:
    """Multiply sizes."""
    result = ONE
    for size in sizes:
        result = result * size
    return result
