"""From outcomes to figures: robust accuracies with intervals, the worst case per sample, original against retrofit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from jr_onnx.errors import InputError
from jr_onnx.evaluation.masking import Verdict, judge
from jr_onnx.evaluation.minimal import (
    MinimalComparison,
    MinimalFigures,
    compare_minimal,
    median,
    minimal_figures,
)
from jr_onnx.evaluation.outcome import Outcome, Outcomes, common, select
from jr_onnx.evaluation.statistics import mcnemar, paired_difference, wilson
from jr_onnx.evaluation.store import RunRecord
from jr_onnx.records import Record

ORIGINAL, RETROFIT, MODEL = "original", "retrofit", "model"
"""Labels: the two models that are compared, or the only one."""

ALL_ATTACKS = "all attacks"
"""The group of all adaptive attacks with one budget."""

CLEAN = "clean accuracy"
"""What the comparison before any attack is called."""

SIGNIFICANT = 0.05
"""A p-value below which a difference is called significant."""

_ROBUST = "robust accuracy, "

Hits = npt.NDArray[np.bool_]
Group = tuple[str, str, float | None]
"""What a worst case is over: name, norm, budget."""


@dataclass(frozen=True, slots=True)
class Share(Record):
    """A share of samples with its 95 % Wilson interval."""

    SCHEMA: ClassVar[str] = "jr_onnx.share/1"
    value: float
    low: float
    high: float
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class EntryFigures(Record):
    """One attack on one model.

    Attributes:
        robust: Robust accuracy of the served file: correct before and after.
        torch_robust: The same as the attacked torch model sees it.
        success_rate: Share of the samples that the served file classified correctly and then did not, at any size of
            the perturbation where there is no budget.
        median_relative: Median relative perturbation (paper, eq. 12) over all samples, failures as infinity.
        mean_relative: Mean relative perturbation; under the paper's protocol that of the last iterate over all samples,
            failures included, as the paper averages, else over the samples that were fooled.
        mean_forward: Forward passes per sample.
        mean_backward: Backward passes per sample.
        nonfinite: Samples with a NaN or an infinity on the way.
        zero_gradient: Samples with a gradient of zero on the way.
        disagreements: Samples that torch and the served file judge differently.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.entry_figures/1"
    entry: str
    view: str
    threat: str
    protocol: str
    norm: str
    eps: float | None
    robust: Share
    torch_robust: Share
    success_rate: float
    median_relative: float
    mean_relative: float
    mean_forward: float
    mean_backward: float
    nonfinite: int
    zero_gradient: int
    disagreements: int

    @property
    def minimises(self) -> bool:
        """Whether the attack looks for the least perturbation, so that it has no robust accuracy of its own."""
        return self.eps is None and self.protocol == "adaptive"


@dataclass(frozen=True, slots=True)
class WorstCase(Record):
    """Robust accuracy against a group of attacks together: a sample counts while it survives all of them.

    Attributes:
        group: "paper protocol (non-adaptive)", "exact gradient" or "all attacks".
        norm: Norm of the budget.
        eps: Budget; None for the paper's protocol, whose attacks have no common budget.
        entries: Names of the attacks.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.worst_case/1"
    group: str
    norm: str
    eps: float | None
    robust: Share
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFigures(Record):
    """One model under the whole suite.

    Attributes:
        decided_by: Evaluations that decided about each example; more than 1 for a model that draws random numbers.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.model_figures/1"
    model: str
    clean: Share
    entries: tuple[EntryFigures, ...]
    worst: tuple[WorstCase, ...]
    minimal: tuple[MinimalFigures, ...]
    verdict: Verdict
    decided_by: int = 1


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """Retrofit minus original on the same samples.

    Attributes:
        what: "clean accuracy", or a worst case.
        difference: Difference of the shares, with Tango's 95 % score interval for paired samples.
        p_value: McNemar's exact test, two-sided.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.paired_comparison/1"
    what: str
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """The result of `jr-onnx attack`.

    Attributes:
        comparisons: Retrofit against original, for clean accuracy and every worst case.
        minimal: The same for minimal perturbations, by norm.
        samples: Samples on which every entry is finished on both models; the figures are theirs.
        complete: Whether these are all samples of the run.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.evaluation/1"
    run: RunRecord
    models: tuple[ModelFigures, ...]
    comparisons: tuple[Comparison, ...]
    minimal: tuple[MinimalComparison, ...]
    samples: int
    complete: bool


def evaluate(run: RunRecord, outcomes: Outcomes) -> Evaluation:
    """Sum up a run's outcomes.

    Args:
        run: What was run.
        outcomes: Model label -> entry -> outcome, as `store.merged` gives them; of an unfinished run, those samples
            count on which everything is finished.

    Raises:
        InputError: There is nothing to sum up yet.
    """
    outcomes = finished(run, outcomes)
    models = []
    groups: dict[str, dict[Group, Hits]] = {}
    clean: dict[str, Hits] = {}
    for label in sorted(outcomes, key=lambda name: name != ORIGINAL):
        found = list(outcomes[label].values())
        common(found)
        clean[label] = np.asarray(found[0].served_correct, dtype=bool)
        members = _groups(found)
        groups[label] = {key: _survivors(items, key[2]) for key, items in members.items()}
        worst = tuple(
            WorstCase(*key, share_of(hits), tuple(item.entry for item in members[key]))
            for key, hits in groups[label].items()
        )
        figures = tuple(_figures(item) for item in found)
        decided_by = max(item.decided_by for item in found)
        models.append(
            ModelFigures(
                label, share_of(clean[label]), figures, worst, minimal_figures(found), judge(found), decided_by
            )
        )
    samples = len(next(iter(clean.values())))
    pair = [list(outcomes[label].values()) for label in (RETROFIT, ORIGINAL) if label in outcomes]
    minimal = compare_minimal(*pair) if len(pair) == 2 else ()
    return Evaluation(run, tuple(models), _comparisons(clean, groups), minimal, samples, samples == run.samples)


def finished(run: RunRecord, outcomes: Outcomes) -> dict[str, dict[str, Outcome]]:
    """Return the outcomes cut down to the samples on which every entry is finished on every model.

    Raises:
        InputError: There is no such sample.
    """
    everything = [outcomes.get(label, {}).get(name) for label in run.models for name in run.entries]
    common_indices: set[int] = set(range(run.samples))
    for item in everything:
        common_indices &= set(item.indices) if item is not None else set()
    if not common_indices:
        raise InputError(
            "no sample is finished on all attacks and both models yet, so there is nothing to sum up",
            hint="Run the same jr-onnx attack command again: it resumes the evaluation",
        )
    return {
        label: {name: select(outcomes[label][name], common_indices) for name in run.entries} for label in run.models
    }


def _groups(outcomes: Sequence[Outcome]) -> dict[Group, list[Outcome]]:
    """Sort outcomes into the groups whose worst case is reported.

    The paper's attacks have no budget in common, so they form a group of their own; minimal perturbations count for
    a budget where they stay within it.
    """
    found: dict[Group, list[Outcome]] = {}
    white_paper = [item for item in outcomes if item.protocol == "paper" and item.entry == "paper/pgd"]
    if white_paper:
        found["paper protocol (non-adaptive): PGD", "linf", None] = white_paper
    adaptive = [item for item in outcomes if item.protocol == "adaptive"]
    for norm, eps in sorted({(item.norm, item.eps) for item in adaptive if item.eps is not None}):
        members = [item for item in adaptive if (item.norm, item.eps) == (norm, eps)]
        minimal = [item for item in adaptive if (item.norm, item.eps) == (norm, None)]
        exact = [item for item in members if item.view == "exact"]
        if exact:
            found["exact gradient", norm, eps] = exact
        found[ALL_ATTACKS, norm, eps] = [*members, *minimal]
    return found


def _survivors(members: Sequence[Outcome], eps: float | None) -> Hits:
    result: Hits = np.all([item.robust_within(eps) for item in members], axis=0)
    return result


def survivors(outcomes: Sequence[Outcome]) -> Hits:
    """Return which samples (N,) a model classifies correctly under every adaptive attack with the least budget."""
    groups = _groups(outcomes)
    return next(_survivors(members, eps) for (group, _, eps), members in groups.items() if group == ALL_ATTACKS)


def _figures(item: Outcome) -> EntryFigures:
    correct = np.asarray(item.correct, dtype=bool)
    success = np.asarray(item.success, dtype=bool)
    relative = np.asarray(item.relative, dtype=np.float64)
    averaged = np.ones(len(relative), dtype=bool) if item.protocol == "paper" else item.fooled
    usable = relative[averaged & np.isfinite(relative)]
    served = np.asarray(item.served_correct, dtype=bool)
    return EntryFigures(
        entry=item.entry,
        view=item.view,
        threat=item.threat,
        protocol=item.protocol,
        norm=item.norm,
        eps=item.eps,
        robust=share_of(item.served_robust),
        torch_robust=share_of(correct & ~success),
        success_rate=float(np.sum(served & ~item.served_robust)) / max(1, int(np.sum(served))),
        median_relative=median(np.where(success, relative, math.inf)),
        mean_relative=float(np.mean(usable)) if len(usable) else 0.0,
        mean_forward=float(np.mean(item.forward)),
        mean_backward=float(np.mean(item.backward)),
        nonfinite=int(np.sum(np.asarray(item.nonfinite) > 0)),
        zero_gradient=int(np.sum(np.asarray(item.zero_gradient) > 0)),
        disagreements=item.disagreements,
    )


def case_name(group: str, norm: str, eps: float | None) -> str:
    """Return what the comparison of a worst case is called."""
    budget = f", {norm} {eps:.4g}" if eps is not None else ""
    return f"{_ROBUST}{group}{budget}"


@dataclass(frozen=True)
class AccuracyRow:
    """A row of the table that sums up an evaluation.

    Attributes:
        what: What its comparison is called: `CLEAN`, or a `case_name`.
        shares: One for each model.
        difference: Retrofit minus original; None where there is no pair.
    """

    what: str
    shares: tuple[Share, ...]
    difference: Comparison | None

    @property
    def name(self) -> str:
        """Clean accuracy, or the attacks of a worst case and their budget."""
        return self.what.removeprefix(_ROBUST)

    @property
    def is_main(self) -> bool:
        """Whether it is a worst case over all attacks."""
        return self.name.startswith(ALL_ATTACKS)


def accuracy_rows(evaluation: Evaluation) -> tuple[AccuracyRow, ...]:
    """Return clean accuracy and every worst case, each with the shares of all models."""
    compared = {item.what: item for item in evaluation.comparisons}
    shares = {CLEAN: [figures.clean for figures in evaluation.models]}
    for figures in evaluation.models:
        for case in figures.worst:
            shares.setdefault(case_name(case.group, case.norm, case.eps), []).append(case.robust)
    return tuple(AccuracyRow(what, tuple(found), compared.get(what)) for what, found in shares.items())


def compare(what: str, new: Hits, old: Hits) -> Comparison:
    """Return the paired comparison of two models on the same samples (N,)."""
    return Comparison(what, *paired_difference(new, old), mcnemar(new, old))


def share_of(members: Hits) -> Share:
    """Return a share of samples (N,) with its interval."""
    count, total = int(np.sum(members)), len(members)
    low, high = wilson(count, total)
    return Share(count / total if total else 0.0, low, high, count, total)


def _comparisons(
    clean: Mapping[str, Hits],
    groups: Mapping[str, Mapping[Group, Hits]],
) -> tuple[Comparison, ...]:
    if not {ORIGINAL, RETROFIT} <= set(clean):
        return ()
    pairs = [(CLEAN, clean[RETROFIT], clean[ORIGINAL])]
    for key, survived in groups[RETROFIT].items():
        other = groups[ORIGINAL].get(key)
        if other is not None:
            pairs.append((case_name(*key), survived, other))
    return tuple(compare(what, new, old) for what, new, old in pairs)
