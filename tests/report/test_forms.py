"""The report as Markdown, CSV and JSON, and its decision and curves."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.errors import InputError
from jr_onnx.evaluation.curve import security_curves
from jr_onnx.evaluation.decision import by_attacker, recommendation
from jr_onnx.evaluation.summary import evaluate
from jr_onnx.report import Report, write
from jr_onnx.report.texts import as_csv, as_json, as_markdown
from tests.evaluation.builders import first, outcome
from tests.report.test_report import made


def with_transfer() -> Report:
    evaluation, outcomes = made()
    kinds = {
        "from kappa*0": {
            "view": "transfer",
            "threat": "transfer",
            "spec": {"name": "apgd", "source_kappa_multiple": 0.0},
        },
        "square": {"view": "black_box", "threat": "black_box"},
    }
    won = {"original": {"from kappa*0": 60, "square": 20}, "retrofit": {"from kappa*0": 10, "square": 5}}
    for model, entries in won.items():
        for name, count in entries.items():
            outcomes[model][name] = outcome(name, first(count, 100), model=model, **kinds[name])
    run = replace(evaluation.run, entries=(*evaluation.run.entries, *kinds))
    return Report(evaluate(run, outcomes), outcomes)


def test_attackers_are_told_apart_by_what_they_know() -> None:
    rows = with_transfer().attackers
    assert [row.attacker.partition(":")[0] for row in rows] == [
        "does not know the jump", "can only query the model", "knows everything",
    ]  # fmt: skip
    assert [row.shares["retrofit"].count for row in rows] == [90, 95, 30]
    assert [row.shares["original"].count for row in rows] == [40, 80, 39]
    assert rows[0].difference is not None
    assert rows[0].difference.difference == pytest.approx(0.5)


def test_the_recommendation_follows_the_strongest_attacker() -> None:
    report = with_transfer()
    assert report.recommendation.startswith("Do not deploy kappa 0.5: 9 points less robust than the original")
    evaluation, outcomes = made(masked=False)
    better = Report(evaluation, outcomes)
    assert better.recommendation.startswith("Kappa 0.5 helps: 30 points more robust")
    assert recommendation(evaluation, ()).startswith("No recommendation")
    unfinished = replace(evaluation, complete=False)
    assert "yet" in recommendation(unfinished, by_attacker(evaluation, outcomes))


def test_the_curve_counts_who_survives_each_budget() -> None:
    sizes = tuple(0.01 * (row + 1) for row in range(100))
    evaluation, outcomes = made()
    for model in outcomes:
        outcomes[model]["ddn"] = replace(outcomes[model]["ddn"], distance=sizes)
    curves = security_curves([evaluation], outcomes)
    assert [(curve.model, curve.norm) for curve in curves] == [("original", "l2"), ("retrofit", "l2")]
    for curve in curves:
        for eps, robust, low, high in zip(curve.eps, curve.robust, curve.low, curve.high, strict=True):
            assert robust == np.mean([size > eps for size in sizes])
            assert low <= robust <= high


def test_markdown_and_csv_say_what_the_evaluation_says() -> None:
    report = with_transfer()
    text = as_markdown(report)
    assert f"**{report.recommendation}**" in text
    assert "| knows everything | 39.0% (30.0 to 48.8) | 30.0% (21.9 to 39.6) | -9.0" in text
    assert "- retrofit: gradients are masked" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    cell = next(row for row in rows if row["what"] == "attacker: knows everything" and row["model"] == "retrofit")
    assert (cell["count"], cell["samples"], cell["difference"]) == ("30", "100", "-0.09")
    (minimising,) = (row for row in rows if (row["what"], row["model"]) == ("attack: ddn", "retrofit"))
    assert (minimising["robust"], minimising["fooled"], minimising["median_relative"]) == ("", "1", "0.1495")
    (fixed,) = (row for row in rows if (row["what"], row["model"]) == ("attack: apgd", "retrofit"))
    assert (fixed["robust"], fixed["fooled"], fixed["median_relative"]) == ("0.7", "0.3", "")
    curve = [row for row in rows if (row["what"], row["model"]) == ("security curve", "original")]
    assert [float(row["eps"]) for row in curve] == pytest.approx(report.curves[0].eps, rel=1e-5)


def test_runs_at_other_budgets_are_in_every_format() -> None:
    report = with_transfer()
    assert report.budgets == ()
    assert "at every budget" not in as_markdown(report)
    outcomes = {
        model: {name: item if item.eps is None else replace(item, eps=0.05) for name, item in entries.items()}
        for model, entries in report.outcomes.items()
    }
    weaker = evaluate(replace(report.evaluation.run, eps=0.05), outcomes)
    both = replace(report, others=(weaker,))
    names = ["all attacks, linf 0.05", "all attacks, linf 0.1"]
    assert [row.name for row in both.budgets] == names
    assert "## Robust accuracy at every budget\n\n| attacks |" in as_markdown(both)
    worst = [row for row in csv.DictReader(io.StringIO(as_csv(both))) if row["what"] == "worst case: all attacks"]
    assert [(row["model"], row["eps"]) for row in worst if row["norm"] == "linf"] == [
        ("original", "0.1"), ("retrofit", "0.1"), ("original", "0.05"), ("retrofit", "0.05"),
    ]  # fmt: skip
    assert all(row["difference"] for row in worst)


def test_json_holds_everything(tmp_path: Path) -> None:
    report = with_transfer()
    content = json.loads(as_json(report))
    assert content["recommendation"] == report.recommendation
    assert content["evaluation"]["schema"] == "jr_onnx.evaluation/1"
    assert len(content["curves"]) == 2
    write(report, tmp_path / "report.json", "json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == content
    with pytest.raises(InputError, match="expected one of html, md, csv, json"):
        write(report, tmp_path / "report.pdf", "pdf")
    assert not (tmp_path / "report.pdf").exists()
