"""What to decide: original against retrofit by what the attacker knows, and a recommendation in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jr_onnx.evaluation.advice import WANTED, least_difference
from jr_onnx.evaluation.numbers import points
from jr_onnx.evaluation.outcome import Outcome, Outcomes
from jr_onnx.evaluation.summary import (
    CLEAN,
    ORIGINAL,
    RETROFIT,
    SIGNIFICANT,
    Comparison,
    Evaluation,
    Hits,
    Share,
    compare,
    share_of,
)
from jr_onnx.records import Record
from jr_onnx.semantics import channels_of

_QUERIES, _STRONGEST = "can only query the model", "knows everything"


@dataclass(frozen=True, slots=True)
class AttackerRow(Record):
    """What one kind of attacker achieves within the budget that was asked for.

    Attributes:
        attacker: What it knows, in words.
        shares: Model label -> robust accuracy against all its attacks together.
        difference: Retrofit minus original; None where there is no pair.
        entries: Its attacks.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.attacker_row/1"
    attacker: str
    shares: dict[str, Share]
    difference: Comparison | None
    entries: tuple[str, ...]


_ATTACKERS: tuple[tuple[str, Callable[[Outcome], bool]], ...] = (
    (
        "does not know the jump: has the original's weights",
        lambda item: item.spec.get("source_kappa_multiple") == 0.0 or item.spec.get("source_kappa") == 0.0,
    ),
    (_QUERIES, lambda item: item.view == "black_box"),
    (_STRONGEST, lambda item: True),  # noqa: ARG005 - every attack is one that it can run
)


def by_attacker(evaluation: Evaluation, outcomes: Outcomes) -> tuple[AttackerRow, ...]:
    """Return a row for each kind of attacker of which the suite has attacks with the budget that was asked for.

    Args:
        evaluation: What was found.
        outcomes: Model label -> entry -> outcome, on the same samples.
    """
    run, rows = evaluation.run, []
    attacks = {figures.model: attacks_by_attacker(evaluation, outcomes[figures.model])
               for figures in evaluation.models if figures.model in outcomes}  # fmt: skip
    for attacker, _ in _ATTACKERS:
        if not attacks or any(attacker not in found for found in attacks.values()):
            continue
        survivors: dict[str, Hits] = {
            label: np.all([item.robust_within(run.eps) for item in found[attacker]], axis=0)
            for label, found in attacks.items()
        }
        pair = None
        if {ORIGINAL, RETROFIT} <= set(survivors):
            pair = compare(f"robust accuracy, {attacker}", survivors[RETROFIT], survivors[ORIGINAL])
        names = tuple(dict.fromkeys(item.entry for found in attacks.values() for item in found[attacker]))
        shares = {label: share_of(hits) for label, hits in survivors.items()}
        rows.append(AttackerRow(attacker, shares, pair, names))
    return tuple(rows)


def who(attacker: str) -> str:
    """Return an attacker in words that follow "an attacker who"."""
    return attacker.replace(": ", " but ", 1)


def attacks_by_attacker(evaluation: Evaluation, entries: Mapping[str, Outcome]) -> dict[str, list[Outcome]]:
    """Return the adaptive attacks on a model that each kind of attacker can run, those with none left out.

    They have the budget that was asked for, or none and its norm: minimal perturbations count where they fit into it.
    """
    run = evaluation.run
    usable = [
        item
        for item in entries.values()
        if item.protocol == "adaptive" and item.norm == run.norm and item.eps in (None, run.eps)
    ]
    found = {attacker: [item for item in usable if belongs(item)] for attacker, belongs in _ATTACKERS}
    if len(found[_QUERIES]) == len(found[_STRONGEST]):
        del found[_STRONGEST]  # whose knowledge no attack used
    return {attacker: members for attacker, members in found.items() if members}


def kappa_range(evaluation: Evaluation) -> str:
    """Return the kappa of the retrofit, or the least and the greatest; "" without a site."""
    kappas = {value for kappa in evaluation.run.kappas.values() for value in channels_of(kappa)}
    ends = dict.fromkeys((min(kappas), max(kappas))) if kappas else ()
    return " to ".join(f"{kappa:g}" for kappa in ends)


def kappa_words(evaluation: Evaluation) -> str:
    """Name the kappa of the retrofit, such as "kappa 0.5"; "" without a site."""
    found = kappa_range(evaluation)
    random = {figures.model for figures in evaluation.models if figures.decided_by > 1}
    if not found:
        return ""
    return f"random kappas of mean {found}" if random == {RETROFIT} else f"kappa {found}"


def recommendation(evaluation: Evaluation, rows: tuple[AttackerRow, ...]) -> str:
    """Say in one sentence whether to deploy the retrofit, judged by the strongest attacker that was tried.

    Args:
        evaluation: What was found.
        rows: From `by_attacker`.
    """
    run, strongest = evaluation.run, rows[-1] if rows else None
    if strongest is None:
        return "No recommendation: no attack of this suite adapts to the model within a budget."
    if strongest.difference is None:
        share = next(iter(strongest.shares.values()))
        against = "all attacks" if strongest.attacker == _STRONGEST else "all attacks that only query the model"
        return (
            f"{share.count} of {share.total} images survive {against} within {run.norm} {run.eps:.4g}; there is no "
            "retrofit to compare with."
        )
    if not evaluation.complete:
        return f"No recommendation yet: {evaluation.samples} of {run.samples} samples are evaluated."
    knows_all = strongest.attacker == _STRONGEST
    whom = "an attacker who knows it" if knows_all else f"an attacker who {who(strongest.attacker)}"
    if strongest.difference.p_value >= SIGNIFICANT and least_difference(evaluation.samples) > WANTED:
        return (
            f"No recommendation: {evaluation.samples} images are too few; against {whom}, "
            f"{_no_difference(strongest.difference)}."
        )
    untried = "" if knows_all else "; one who knows it was not tried"
    return f"{_compared(evaluation, strongest.difference, whom)}{untried}."


def _compared(evaluation: Evaluation, item: Comparison, whom: str) -> str:
    name = kappa_words(evaluation) or "this model"
    if item.p_value >= SIGNIFICANT:
        return f"Do not expect protection from {name}: against {whom}, {_no_difference(item)}"
    count = round(abs(100 * item.difference))
    size = f"{count} point{'' if count == 1 else 's'}"
    if item.difference < 0:
        return f"Do not deploy {name}: {size} less robust than the original against {whom} ({_span(item)})"
    clean = next((entry for entry in evaluation.comparisons if entry.what == CLEAN), None)
    cost = "" if clean is None else f", at {points(clean.difference)} points of clean accuracy"
    verb = "help" if name.startswith("random kappas") else "helps"
    text = f"{verb}: {size} more robust than the original against {whom} ({_span(item)}){cost}"
    return f"{name[0].upper()}{name[1:]} {text}"


def _no_difference(item: Comparison) -> str:
    return f"retrofit and original do not differ significantly ({_span(item)} points)"


def _span(item: Comparison) -> str:
    return f"95% interval {100 * item.low:+.0f} to {100 * item.high:+.0f}"
