"""The masking verdict: do the results themselves say that gradients were hidden from the attack?

A defence that hides its gradients makes gradient attacks fail without making the model robust (Athalye et al. 2018).
Every flag below is a paired or exact test on outcomes, with a significance level and a least effect: surrogates beat
the exact gradient by a little on plain networks too. The code sees outcomes only; it knows neither kappa nor the
activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from jr_onnx.evaluation.numbers import points
from jr_onnx.evaluation.outcome import Outcome, View, common
from jr_onnx.evaluation.statistics import binomial_tail, mcnemar_one_sided, sign_test
from jr_onnx.records import Record

LEVEL = 0.01
"""Significance level of each flag, divided by the number of comparisons it makes (Bonferroni)."""

LEAST_GAIN = 0.05
"""Least gain in success, as a share of all samples, of one attack over all exact-gradient attacks together."""

LEAST_SHRINK = 0.9
"""Greatest median ratio of a surrogate's minimal perturbation to the best exact one that raises a flag."""

TOLERATED_DEAD = 0.01
"""Share of attacked samples whose gradient may be dead in every exact attack."""

TOLERATED_SURVIVORS = 0.10
"""Share of attacked samples that may survive the largest budget of a ladder."""

HUGE_LINF = 0.4
"""An L-infinity budget that leaves no classifier standing: the strongest defences of the easiest images end below."""

_NOTHING_ATTACKED = "no image was classified correctly, so there was nothing to attack"
_WIDE = 2.0  # a ladder reaches at least this multiple of its least budget


@dataclass(frozen=True, slots=True)
class Flag(Record):
    """One sign of masking.

    Attributes:
        name: Which sign.
        raised: Whether the results show it.
        checked: Whether there were results to judge by.
        evidence: What was found, in a sentence.
        p_value: P-value of the test, after correction for the number of comparisons; 1 where nothing was checked.
        effect: Size of what was found, in the units of `least_effect`.
        least_effect: What it takes to raise the flag.
        remedy: What to do about it.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.masking_flag/1"
    name: str
    raised: bool
    checked: bool
    evidence: str
    p_value: float
    effect: float
    least_effect: float
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """All flags of one model.

    Attributes:
        model: Its label.
        flags: One per sign.
        not_judged: Why the absence of flags says nothing; "" where it says that no sign was found.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.masking_verdict/1"
    model: str
    flags: tuple[Flag, ...]
    not_judged: str = ""

    @property
    def masked(self) -> bool:
        """Whether any flag is raised."""
        return any(flag.raised for flag in self.flags)

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.masked:
            return "GRADIENTS ARE MASKED"
        return f"not judged: {self.not_judged}" if self.not_judged else "no sign of masking"


def judge(outcomes: Sequence[Outcome]) -> Verdict:
    """Judge the outcomes of one model.

    Args:
        outcomes: All outcomes of the model, on the same samples.

    Raises:
        InputError: The outcomes speak of different samples.
    """
    outcomes = list(outcomes)
    common(outcomes)
    model = outcomes[0].model if outcomes else ""
    checks: tuple[Callable[[list[Outcome]], Flag], ...] = (
        surrogate_beats_exact,
        black_box_beats_white_box,
        dead_gradients,
        budget_does_not_help,
        single_draw,
    )
    flags = tuple(check(outcomes) for check in checks)
    if outcomes and not any(np.any(item.attacked) for item in outcomes):
        # No attack had anything to do, so no result says a thing about gradients.
        flags = tuple(replace(flag, raised=False, checked=False, evidence=_NOTHING_ATTACKED) for flag in flags)
    return Verdict(model, flags, _why_not_judged(outcomes))


def _why_not_judged(outcomes: Sequence[Outcome]) -> str:
    """Say why no flag would be no all-clear: only an attack that adapts to the model can find nothing."""
    if not any(np.any(item.attacked) for item in outcomes):
        return _NOTHING_ATTACKED
    adaptive = [item for item in outcomes if item.protocol == "adaptive"]
    if not adaptive:
        return "this suite is not adaptive"
    if not any(item.view == "exact" for item in adaptive):
        return "no attack had gradients, so none could be hidden from it"
    return ""


def surrogate_beats_exact(outcomes: list[Outcome]) -> Flag:
    """Raise when one surrogate or transfer attack finds clearly more, or closer, than all exact ones together."""
    return _beats(
        outcomes,
        ("surrogate", "transfer"),
        "surrogate-beats-exact",
        "a surrogate backward pass or another network's gradient",
        "The exact gradient hides how to fool this model: quote the worst case over surrogates and transfer, never the "
        "exact gradient alone",
    )


def black_box_beats_white_box(outcomes: list[Outcome]) -> Flag:
    """Raise when an attack without gradients finds clearly more than all exact-gradient attacks together."""
    return _beats(
        outcomes,
        ("black_box",),
        "black-box-beats-white-box",
        "an attack that sees outputs alone",
        "Gradients mislead the attack: add surrogate backward passes and transfer, and more queries",
    )


def dead_gradients(outcomes: list[Outcome]) -> Flag:
    """Raise when too many samples survive although, or because, every exact attack had no usable gradient on them."""
    exact = [item for item in outcomes if item.view == "exact"]
    name, remedy = "dead-gradients", "Attack with surrogate backward passes (BPDA) or without gradients"
    if not exact:
        return _unchecked(name, TOLERATED_DEAD, remedy)
    dead = np.ones(len(exact[0]), dtype=bool)
    for item in exact:
        dead &= (_column(item.zero_gradient) > 0) | (_column(item.nonfinite) > 0)
    survived = ~np.any([item.fooled for item in exact], axis=0)
    attacked = exact[0].attacked
    rows, total = int(np.sum(dead & survived & attacked)), int(np.sum(attacked))
    share = rows / max(1, total)
    p_value = binomial_tail(rows, total, TOLERATED_DEAD)
    evidence = f"{rows} of {total} attacked samples survive with a zero or non-finite gradient in every exact attack"
    raised = p_value < LEVEL  # only of a share above the tolerated one
    return Flag(name, raised, True, evidence, p_value, share, TOLERATED_DEAD, remedy)


def budget_does_not_help(outcomes: list[Outcome]) -> Flag:
    """Raise when an exact attack with a multiple of the budget gains next to nothing and leaves many samples.

    Samples count that the budget must reach: because it is huge, or because some attack found a perturbation within
    it. A multiple of a tiny budget is tiny, and surviving it needs no hidden gradient.
    """
    name = "budget-does-not-help"
    remedy = "An attack with a large budget must win: check the gradient, the loss and the number of steps"
    ladders: dict[tuple[str, str], list[tuple[float, Outcome]]] = {}
    for item in outcomes:
        if item.view == "exact" and item.eps is not None:
            ladders.setdefault((item.norm, _family(item)), []).append((item.eps, item))
    found: list[tuple[float, float, str]] = []
    for (norm, family), ladder in sorted(ladders.items()):
        ladder.sort(key=lambda rung: rung[0])
        (least_eps, least), (most_eps, most) = ladder[0], ladder[-1]
        if most_eps < _WIDE * least_eps or least_eps == 0:
            continue
        attacked = most.attacked
        total = int(np.sum(attacked))
        reach = attacked & _within_reach(outcomes, most, most_eps)
        if not reach.any():
            continue
        left = int(np.sum(reach & ~most.fooled))
        _, gain = mcnemar_one_sided(most.fooled, least.fooled)
        p_value = binomial_tail(left, total, TOLERATED_SURVIVORS)
        share = left / max(1, total)
        helps = gain >= LEAST_GAIN
        text = (
            f"{family} ({norm}): {left} of {total} samples survive eps {most_eps:g}, within which they can be fooled, "
            f"after a gain of {points(gain)} points over eps {least_eps:g}"
        )
        found.append((1.0 if helps else p_value, share, text))
    if not found:
        return _unchecked(name, TOLERATED_SURVIVORS, remedy)
    p_value, share, evidence = min(_corrected(found), key=lambda item: (item[0], -item[1]))
    raised = p_value < LEVEL  # only of a share above the tolerated one
    return Flag(name, raised, True, evidence, p_value, share, TOLERATED_SURVIVORS, remedy)


def _within_reach(outcomes: list[Outcome], most: Outcome, budget: float) -> npt.NDArray[np.bool_]:
    """Return which samples (N,) can be fooled within a budget: all if it is huge, else those that an attack fooled."""
    if most.norm == "linf" and budget >= HUGE_LINF:
        return np.ones(len(most), dtype=bool)
    same = [item.minimal for item in outcomes if item.norm == most.norm and item.model == most.model]
    result: npt.NDArray[np.bool_] = np.min(same, axis=0) <= budget
    return result


def single_draw(outcomes: list[Outcome]) -> Flag:
    """Raise when a random model was judged by one draw, or when averaging draws finds clearly more."""
    name = "single-draw"
    remedy = "Average the gradient over at least 20 draws (EOT), and decide by repeated evaluation"
    averaged = [item for item in outcomes if item.draws > 1]
    careless = [item for item in averaged if item.decided_by <= 1]
    if careless:
        evidence = f"{careless[0].entry} averages {careless[0].draws} draws but was decided by one evaluation"
        return Flag(name, True, True, evidence, 0.0, 1.0, LEAST_GAIN, remedy)
    single = [item for item in outcomes if item.decided_by > 1 and item.draws == 1 and item.view == "exact"]
    comparisons = [
        (*mcnemar_one_sided(strong.fooled, weak.fooled), f"{strong.entry} ({strong.draws} draws) against {weak.entry}")
        for strong in averaged
        for weak in single
        if (strong.norm, strong.eps) == (weak.norm, weak.eps) and weak.eps is not None
    ]
    return _best(name, comparisons, remedy)


def _beats(outcomes: list[Outcome], views: tuple[View, ...], name: str, what: str, remedy: str) -> Flag:
    """Compare each attack of `views` with all exact attacks of its norm and budget together."""
    comparisons: list[tuple[float, float, str]] = []
    shrinks: list[tuple[float, float, str]] = []
    for item in outcomes:
        if item.view not in views:
            continue
        exact = [
            other
            for other in outcomes
            if other.view == "exact" and other.norm == item.norm and other.eps == item.eps and other.model == item.model
        ]
        if not exact:
            continue
        if item.eps is not None:
            together = np.any([other.fooled for other in exact], axis=0)
            p_value, gain = mcnemar_one_sided(item.fooled, together)
            text = f"{what} ({item.entry}) fools {100 * gain:.1f} points more samples than all exact attacks together"
            comparisons.append((p_value, gain, text))
        else:
            closest = np.min([other.minimal for other in exact], axis=0)
            attacked = item.attacked
            p_value, ratio = sign_test(item.minimal[attacked], closest[attacked])
            text = f"{what} ({item.entry}) needs {ratio:.0%} of the perturbation of all exact attacks together (median)"
            shrinks.append((p_value, ratio, text))
    flag = _best(name, comparisons, remedy)
    if flag.raised or not shrinks:
        return flag
    found = [
        Flag(name, p_value < LEVEL and ratio <= LEAST_SHRINK, True, evidence, p_value, ratio, LEAST_SHRINK, remedy)
        for p_value, ratio, evidence in _corrected(shrinks)
    ]
    closest = min(found, key=lambda item: (not item.raised, item.effect, item.p_value))
    return flag if flag.checked and not closest.raised else closest


def _best(name: str, comparisons: list[tuple[float, float, str]], remedy: str) -> Flag:
    """Raise where any comparison is both clear and large: the surest one may be of a small gain."""
    if not comparisons:
        return _unchecked(name, LEAST_GAIN, remedy)
    found = [
        Flag(name, p_value < LEVEL and gain >= LEAST_GAIN, True, evidence, p_value, gain, LEAST_GAIN, remedy)
        for p_value, gain, evidence in _corrected(comparisons)
    ]
    return min(found, key=lambda item: (not item.raised, item.p_value, -item.effect))


def _corrected(comparisons: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Correct the p-value of each comparison, its first item, for their number (Bonferroni)."""
    return [(min(1.0, p_value * len(comparisons)), effect, text) for p_value, effect, text in comparisons]


def _unchecked(name: str, least_effect: float, remedy: str) -> Flag:
    return Flag(name, False, False, "no results to judge by in this suite", 1.0, 0.0, least_effect, remedy)


def _family(item: Outcome) -> str:
    """Name an attack without its budget, so that a ladder of budgets has one name."""
    loss = item.spec.get("loss")
    return f"{item.spec.get('name', item.entry)}{f' {loss}' if loss else ''}"


def _column(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
