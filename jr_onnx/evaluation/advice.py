"""What a reader should know before quoting figures: whether budget and number of samples can show anything at all."""

from __future__ import annotations

import itertools
import math

from jr_onnx.evaluation.statistics import binomial_tail
from jr_onnx.evaluation.store import RunRecord
from jr_onnx.evaluation.summary import ALL_ATTACKS, SIGNIFICANT, Evaluation, ModelFigures, Share

_FEW = 0.05
"""A share below which nothing is left to compare."""

WANTED = 0.1
"""A difference that an evaluation must be able to show before its absence means anything."""


def advice(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the cautions, and what the wide budget is."""
    return (*cautions(evaluation), *wide_budget(evaluation))


def cautions(evaluation: Evaluation) -> tuple[str, ...]:
    """Return sentences about a budget that is too large or too small, and too few samples."""
    run, found = evaluation.run, []
    budget = f"{run.norm} {run.eps:.4g}"
    asked = [(figures.clean, _asked(run, figures)) for figures in evaluation.models]
    shares = [(clean, robust) for clean, robust in asked if robust is not None]
    if evaluation.samples < 1 / _FEW:  # for two models, the text below says how few these are
        if len(evaluation.models) == 1:
            found.append(
                f"{evaluation.samples} samples are too few to judge a budget by, or a share: see the intervals"
            )
    elif shares and all(robust.value <= _FEW for _, robust in shares):
        found.append(f"the budget {budget} is too large to tell models apart: hardly any image survives it")
    elif shares and all(clean.count - robust.count <= _FEW * clean.total for clean, robust in shares):
        found.append(f"the budget {budget} is too small to tell models apart: attacks fool hardly any image within it")
    least = least_difference(evaluation.samples)
    if len(evaluation.models) > 1 and least > WANTED:
        found.append(
            f"{evaluation.samples} samples are few: only differences of {least:.0%} and more can be significant "
            f"(p below {SIGNIFICANT}); {math.ceil(_least_changed() / WANTED)} samples show one of {WANTED:.0%}"
        )
    return tuple(found)


def wide_budget(evaluation: Evaluation) -> tuple[str, ...]:
    """Return a sentence about the budget with which an attack must win, if the suite has one."""
    run = evaluation.run
    cases = [case for figures in evaluation.models for case in figures.worst if case.norm == run.norm]
    widest = max((case.eps for case in cases if case.eps is not None), default=run.eps)
    if widest <= run.eps or all(_asked(run, figures) is None for figures in evaluation.models):
        return ()
    return (
        f"the rows at {run.norm} {widest:.4g} are not a threat model but a check: with such a budget an attack "
        "must win, and where it does not, it is the attack that fails",
    )


def least_difference(samples: int) -> float:
    """Return the least difference of two paired shares that McNemar's test can call significant: all one way."""
    return min(1.0, _least_changed() / samples) if samples else 1.0


def _least_changed() -> int:
    """Return how many samples must differ, all one way, for McNemar's test to call it significant."""
    return next(count for count in itertools.count() if 2 * binomial_tail(count, count, 0.5) < SIGNIFICANT)


def _asked(run: RunRecord, figures: ModelFigures) -> Share | None:
    """Return a model's robust accuracy against all attacks together, with the budget that was asked for."""
    wanted = (ALL_ATTACKS, run.norm, run.eps)
    return next((case.robust for case in figures.worst if (case.group, case.norm, case.eps) == wanted), None)
