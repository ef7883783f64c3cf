"""Adversarial training as a section of a report: what the file says of itself, and the comparison after it."""

from __future__ import annotations

from jr_onnx.evaluation.numbers import change, p_value, percent, with_interval
from jr_onnx.evaluation.summary import ModelFigures
from jr_onnx.harden import gain_of, worst_case
from jr_onnx.harden.record import Contest, Hardening, HardenResult
from jr_onnx.records import JsonValue
from jr_onnx.report import Section
from jr_onnx.report.plots import lines

_EPOCHS = ("epoch", "clean accuracy", "under attack", "under one step", "verdict")
CONTEST = ("model", "file", "clean (95%)", "robust (95%)", "against original, points (95%)", "p")


def record(value: JsonValue) -> HardenResult | Hardening:
    """Read a record from JSON values."""
    kind: type[HardenResult | Hardening] = (
        HardenResult if isinstance(value, dict) and value.get("schema") == HardenResult.SCHEMA else Hardening
    )
    return kind.from_json(value)


def section(result: HardenResult | Hardening) -> Section:
    """Return the section: the recipe, accuracy over the epochs, and the comparison where there is one."""
    found = result.hardening if isinstance(result, HardenResult) else result
    contest = result.contest if isinstance(result, HardenResult) else None
    recipe = found.recipe
    best = found.rows[found.best]
    text = [
        f"{found.source_name} was trained with {recipe.method} ({recipe.steps} steps) within {recipe.norm} "
        f"{recipe.eps:.4g} in pixel scale on {found.data}; epoch {found.best} of {len(found.rows) - 1} is kept.",
        f"On validation images: clean {percent(found.rows[0].clean)} before and {percent(best.clean)} after, "
        f"under attack {percent(found.rows[0].robust)} before and {percent(best.robust)} after.",
    ]
    if contest is not None:
        text.append(
            f"On test images, which were not used in training: deploy the {contest.chosen} model "
            f"({contest.names[contest.chosen]}). Reason: {contest.reason}."
        )
    epochs = [float(row.epoch) for row in found.rows]
    curves = {
        "clean": [row.clean for row in found.rows],
        "under attack": [row.robust for row in found.rows],
        "under one step": [row.one_step for row in found.rows],
    }
    return Section(
        title="Adversarial training",
        text=tuple(text),
        columns=_EPOCHS if contest is None else CONTEST,
        rows=_epochs(found) if contest is None else contest_rows(contest),
        record=result,
        draw=lambda narrow: lines(
            epochs, curves, ("epoch", "accuracy on validation images"),
            "Curves of accuracy over the epochs of training", narrow=narrow,
        ),
        caption="Accuracy on validation images before training (epoch 0) and after every epoch. Accuracy under one "
        "step far above that under attack would mean that training misled the attack.",
        finding=_finding(found, contest),
        models=(found.source_name, found.source_sha256, *(() if contest is None else contest.names.values())),
    )  # fmt: skip


def _finding(found: Hardening, contest: Contest | None) -> str:
    before, best = found.rows[0], found.rows[found.best]
    if contest is None:
        did = "raised" if best.robust > before.robust else "did not raise"
        return (
            f"Adversarial training {did} accuracy under attack on validation images: {percent(before.robust)} before, "
            f"{percent(best.robust)} after; clean accuracy went from {percent(before.clean)} to {percent(best.clean)}."
        )
    chosen = contest.chosen
    evaluation = contest.evaluations.get(chosen)
    if evaluation is None:
        return f"After adversarial training, still deploy the {chosen} model: {contest.reason}."
    (original, other), recipe = evaluation.models, found.recipe
    return (
        f"Adversarial training helps: deploy {contest.names[chosen]}, which is right on "
        f"{percent(worst_case(other).value)} of the images attacked within {recipe.norm} {recipe.eps:.4g}, the "
        f"original on {percent(worst_case(original).value)}."
    )


def _epochs(found: Hardening) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (str(row.epoch), percent(row.clean), percent(row.robust), percent(row.one_step),
         "kept" if place == found.best else "")
        for place, row in enumerate(found.rows)
    )  # fmt: skip


def contest_rows(contest: Contest) -> tuple[tuple[str, ...], ...]:
    """Return a row of `CONTEST` for the original and for every hardened model."""
    rows: list[tuple[str, ...]] = []
    for label, evaluation in contest.evaluations.items():
        original, other = evaluation.models
        if not rows:
            rows.append(("original", contest.names["original"], *_accuracies(original), "", ""))
        gain = gain_of(evaluation)
        rows.append((label, contest.names[label], *_accuracies(other), change(gain), p_value(gain.p_value)))
    return tuple(rows)


def _accuracies(figures: ModelFigures) -> tuple[str, str]:
    return with_interval(figures.clean), with_interval(worst_case(figures))
