"""How long the rest of a run takes: by what its attacks cost, not by how many there are.

Before an attack was seen, its cost is a count of passes through the network; the time of a pass is learnt from those
that were seen. Once it was seen on the same model, its own time counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jr_onnx.attack.base import Attack

_BACKWARD = 2
"""Forward passes that a backward pass costs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a unit of work is expected to cost.

    Attributes:
        kind: Units of one kind (an attack on a model) cost the same for each sample.
        samples: How many samples it attacks.
        passes: Expected passes through the network for each sample; 0 where the result is taken from another unit.
    """

    kind: str
    samples: int
    passes: float


def expected_passes(attack: Attack) -> float:
    """Return about how many forward passes an attack makes for each sample, were no sample fooled before the end."""

    def number(name: str, otherwise: int = 1) -> int:
        return int(getattr(attack, name, otherwise))

    steps = number("steps", number("queries"))
    gradients = number("classes") if attack.needs_gradient else 0
    whole = steps * (1 + _BACKWARD * gradients) * number("eot") * number("restarts") * number("targets")
    return float(whole + number("multiples", 0) + number("bisections", 0))


class Pace:
    """Estimates the time left from the units that were done.

    Args:
        costs: Of all units that are left to do.
    """

    def __init__(self, costs: Sequence[Cost]) -> None:
        self._left = Counter({kind: sum(cost.samples for cost in costs if cost.kind == kind) for kind in _kinds(costs)})
        self._passes = {cost.kind: cost.passes for cost in reversed(costs)}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._samples: Counter[str] = Counter()

    def finished(self, cost: Cost, seconds: float) -> None:
        """Note a unit that was done."""
        self._left[cost.kind] -= cost.samples
        self._seconds[cost.kind] += seconds
        self._samples[cost.kind] += cost.samples

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes; None before anything was done."""
        passes = sum(self._passes[kind] * count for kind, count in self._samples.items())
        if not self._samples:
            return None
        rate = sum(self._seconds.values()) / passes if passes else 0.0
        return sum(count * self._each(kind, rate) for kind, count in self._left.items())

    def _each(self, kind: str, rate: float) -> float:
        seen = self._samples[kind]
        return self._seconds[kind] / seen if seen else self._passes[kind] * rate


def _kinds(costs: Sequence[Cost]) -> list[str]:
    return list(dict.fromkeys(cost.kind for cost in costs))
