"""What a report is about: an evaluation, what to decide from it, and its curves; read from the folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from jr_onnx.errors import InputError
from jr_onnx.evaluation.advice import cautions
from jr_onnx.evaluation.choosing import choose
from jr_onnx.evaluation.curve import SecurityCurve, security_curves
from jr_onnx.evaluation.decision import AttackerRow, by_attacker, kappa_words, recommendation
from jr_onnx.evaluation.examples import ExampleSet, joined
from jr_onnx.evaluation.iterations import IterationCurve, iteration_curves
from jr_onnx.evaluation.numbers import p_value, percent
from jr_onnx.evaluation.outcome import Outcomes
from jr_onnx.evaluation.store import Store, by_run, merged
from jr_onnx.evaluation.summary import (
    ALL_ATTACKS,
    SIGNIFICANT,
    AccuracyRow,
    Evaluation,
    accuracy_rows,
    case_name,
    evaluate,
    finished,
)
from jr_onnx.report.section import Section


@dataclass(frozen=True, repr=False)
class Report:
    """Everything that a report says.

    Attributes:
        evaluation: The main one.
        outcomes: What it was found from, on the samples that are finished.
        others: Evaluations of the same models at other budgets.
        kept: Images with their adversarial examples; None where the folders have none.
        sections: What other commands found.
    """

    evaluation: Evaluation
    outcomes: Outcomes
    others: tuple[Evaluation, ...] = ()
    kept: ExampleSet | None = None
    sections: tuple[Section, ...] = ()

    def __repr__(self) -> str:
        return self.recommendation

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that a notebook shows it as a browser does."""
        from jr_onnx.report.html import page

        style = "width: 100%; height: 50rem; border: 1px solid #888; background: #fff"
        return f'<iframe title="Robustness report" style="{style}" srcdoc="{escape(page(self))}"></iframe>'

    @cached_property
    def attackers(self) -> tuple[AttackerRow, ...]:
        """Robust accuracy by what the attacker knows."""
        return by_attacker(self.evaluation, self.outcomes)

    @property
    def title(self) -> str:
        """Which model this is about, and which kappa where there is a retrofit."""
        first, *others = self.evaluation.models
        name, kappas = self.evaluation.run.files.get(first.model, "a classifier"), kappa_words(self.evaluation)
        return f"Robustness of {name}" + (f" with JumpReLU, {kappas}" if others and kappas else "")

    @property
    def attacks(self) -> str:
        """Which suite attacked what, within which budget."""
        run = self.evaluation.run
        budget = f"{run.norm} {run.eps:.4g} in pixel scale (0 to 1)"
        if run.suite == "paper":
            budget = "with its own budgets, in normalised values"
        return f"suite {run.suite}, {budget}" + (f", on the output {run.logits}" if run.logits else "")

    @property
    def recommendation(self) -> str:
        """What to do, in one sentence."""
        return recommendation(self.evaluation, self.attackers)

    @property
    def findings(self) -> tuple[str, ...]:
        """What else decides, in a sentence each: masked gradients, and what other commands found."""
        masked = (
            f"Gradients of the {figures.model} are masked: what attacks with its exact gradient report is too good. "
            "Only the worst case over all attacks counts."
            for figures in self.evaluation.models
            if figures.verdict.masked
        )
        return (*masked, *(section.finding for section in self.sections if section.finding))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to know before quoting the figures, each as a clause."""
        run = self.evaluation.run
        warnings = (note.removeprefix("warning: ") for note in run.notes if note.startswith("warning"))
        unfinished = () if self.evaluation.complete else (
            f"not finished: {self.evaluation.samples} of {run.samples} samples are evaluated so far; the figures are "
            "theirs",
        )  # fmt: skip
        return (*unfinished, *warnings, *cautions(self.evaluation))

    @property
    def least_perturbations(self) -> tuple[str, ...]:
        """By how much the least perturbations of the two models differ, where they do significantly."""
        return tuple(
            f"The least {item.norm} perturbation that fools the retrofit is {percent(abs(item.ratio - 1))} "
            f"{'larger' if item.ratio > 1 else 'smaller'} than the original's (median of {item.samples} paired "
            f"samples, p {p_value(item.p_value)})."
            for item in self.evaluation.minimal
            if item.p_value < SIGNIFICANT and item.ratio != 1
        )

    @cached_property
    def curves(self) -> tuple[SecurityCurve, ...]:
        """Robust accuracy against eps."""
        labels = {figures.model for figures in self.evaluation.models}
        known = {label: entries for label, entries in self.outcomes.items() if label in labels}
        return security_curves([self.evaluation, *self.others], known)

    @property
    def budgets(self) -> tuple[AccuracyRow, ...]:
        """Robust accuracy against all attacks together in every run, at its own budget; nothing where there is one."""
        runs = sorted((self.evaluation, *self.others), key=lambda item: (item.run.norm, item.run.eps))
        rows = tuple(
            row
            for item in runs
            for row in accuracy_rows(item)
            if row.what == case_name(ALL_ATTACKS, item.run.norm, item.run.eps)
        )
        return rows if len(rows) > 1 else ()

    @cached_property
    def iterations(self) -> tuple[IterationCurve, ...]:
        """Robust accuracy against the iterations that attacks were given."""
        return iteration_curves(self.evaluation, self.outcomes)

    @cached_property
    def examples(self) -> ExampleSet | None:
        """The images to show, by attacker; None where the folders have none."""
        if self.kept is None:
            return None
        found = self.kept.chosen(choose(self.evaluation, self.outcomes))
        # An attack that was repeated on a few images may, by rounding, fail where it won.
        return found.chosen(
            [item.choice for item in found.table.examples if item.fooled or item.choice.kind == "most robust"]
        )


def read(folders: Sequence[Path]) -> Report:
    """Read the folders of one run's shards, and of further runs of the same models.

    Raises:
        InputError: A folder holds no run, a run of other models, nothing finished, or examples that cannot be read.
    """
    first, *more = by_run(folders)
    record, outcomes = merged(first)
    others = []
    for shards in more:
        other, found = merged(shards)
        if other.models != record.models or other.data_sha256 != record.data_sha256:
            raise InputError(
                f"{shards[0]} is about other {'models' if other.models != record.models else 'images'} than {first[0]}",
                hint="A report takes runs of the same models on the same images, at several budgets",
            )
        others.append(evaluate(other, found))
    kept = [item for folder in first if (item := Store(folder).examples()) is not None]
    return Report(evaluate(record, outcomes), finished(record, outcomes), tuple(others), joined(kept))
