"""The search site by site: coordinate search over the kappas of all sites, on a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jr_onnx.semantics import SiteKappa
from jr_onnx.tune.records import TunePoint

Measure = Callable[[dict[str, SiteKappa], str], TunePoint | None]
"""Measures a setting, given with its description; None for a setting that costs too much accuracy."""


@dataclass(frozen=True)
class SiteSearch:
    """What to search.

    Attributes:
        sites: Site ids, in the order in which they are improved.
        grid: Kappas to try at each.
        passes: How often to go over all sites at most.
        measure: Measures a setting.
        skipped: Called with the name of every step that needs no measurement or was not allowed.
        extended: Called with the number of steps of every pass after the first.
    """

    sites: Sequence[str]
    grid: Sequence[float]
    passes: int
    measure: Measure
    skipped: Callable[[str], None] = lambda _: None
    extended: Callable[[int], None] = lambda _: None

    def run(self, points: Sequence[TunePoint]) -> TunePoint:
        """Improve one site's kappa at a time, from the best allowed of some measured points.

        It ends with the first pass that changes nothing. What was measured is not measured again.
        """
        best = max((point for point in points if point.allowed), key=merit)
        known = {_key(point.kappas) for point in points}
        for number in range(self.passes):
            if number:
                self.extended(len(self.sites) * len(self.grid))
            before = best
            for site in self.sites:
                for kappa in self.grid:
                    what, kappas = f"{site} at {kappa:g}", {**best.kappas, site: kappa}
                    found = None if _key(kappas) in known else self.measure(kappas, what)
                    known.add(_key(kappas))
                    if found is None:
                        self.skipped(what)
                    elif merit(found) > merit(best):
                        best = found
            if best is before:
                break
        return best


def merit(point: TunePoint) -> tuple[float, float]:
    """Return what makes a point better than another: the objective, then clean accuracy."""
    return point.objective, point.clean


def _key(kappas: Mapping[str, SiteKappa]) -> tuple[tuple[str, SiteKappa], ...]:
    return tuple(sorted(kappas.items()))
