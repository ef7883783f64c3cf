"""The search site by site, on a landscape that is known."""

from __future__ import annotations

from jr_onnx.tune.records import TunePoint
from jr_onnx.tune.site_search import SiteSearch

LANDSCAPE = {(0.0, 0.0): 0.0, (0.0, 1.0): 1.0, (2.0, 1.0): 2.0}
"""Objective by the kappas of two sites, -1 elsewhere: the first is worth changing only after the second was."""

Place = tuple[float, float]


def point(kappas: dict[str, float], kappa: float | None = None) -> TunePoint:
    score = LANDSCAPE.get((kappas["a"], kappas["b"]), -1.0)
    return TunePoint(kappa, kappas, 1.0, 0.0, score, score, score, score, 1.0, allowed=True)


def searched(passes: int, dear: Place | None = None) -> tuple[Place, list[Place], int]:
    """Search the landscape; return where it ended, what was measured, and how many steps were taken."""
    measured: list[Place] = []
    announced: list[int] = [6]
    skipped: list[str] = []

    def measure(kappas: dict[str, float], what: str) -> TunePoint | None:
        place = kappas["a"], kappas["b"]
        measured.append(place)
        assert what.endswith(f"at {kappas[what[0]]:g}"), "the step is named by what it changes"
        return None if place == dear else point(kappas)

    search = SiteSearch(("a", "b"), (0.0, 1.0, 2.0), passes, measure, skipped.append, announced.append)
    best = search.run([point({"a": kappa, "b": kappa}, kappa) for kappa in (0.0, 1.0, 2.0)])
    assert len(skipped) + len([place for place in measured if place != dear]) == sum(announced), (
        "every step is counted once"
    )
    return (best.kappas["a"], best.kappas["b"]), measured, sum(announced)


def test_it_goes_on_until_a_round_changes_nothing() -> None:
    place, measured, steps = searched(5)
    assert place == (2.0, 1.0)
    assert measured == [(1.0, 0.0), (2.0, 0.0), (0.0, 1.0), (0.0, 2.0), (2.0, 1.0)], "each setting once"
    assert steps == 18, "three passes over two sites and three kappas"
    assert searched(1)[0] == (0.0, 1.0)


def test_it_leaves_what_costs_too_much() -> None:
    place, measured, steps = searched(5, dear=(0.0, 1.0))
    assert place == (0.0, 0.0)
    assert measured.count((0.0, 1.0)) == 1, "refused once, and not tried again"
    assert steps == 6
