"""The page says what the evaluation says, and needs nothing but itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jr_onnx.evaluation.choosing import choose
from jr_onnx.evaluation.examples import Example, ExampleSet, ExampleTable
from jr_onnx.evaluation.outcome import Outcome
from jr_onnx.evaluation.store import RunRecord, Store
from jr_onnx.evaluation.summary import Evaluation, evaluate
from jr_onnx.report import Report, html, page
from jr_onnx.report.texts import as_markdown
from jr_onnx.results import write_report
from tests.evaluation.builders import first, outcome, run_record

Outcomes = dict[str, dict[str, Outcome]]


def made(*, masked: bool = True, **changes: object) -> tuple[Evaluation, Outcomes]:
    """An evaluation of 100 samples with an attack of each kind."""
    won = {
        "original": {"apgd": 60, "smooth": 61, "ddn": 100, "paper/pgd": 30},
        "retrofit": {"apgd": 30, "smooth": 70 if masked else 31, "ddn": 100, "paper/pgd": 10},
    }
    kinds = {
        "apgd": {},
        "smooth": {"view": "surrogate"},
        "ddn": {"eps": None, "norm": "l2", "relative": tuple(0.1 + 0.001 * row for row in range(100))},
        "paper/pgd": {"eps": None, "protocol": "paper"},
    }
    outcomes = {
        model: {name: outcome(name, first(count, 100), model=model, **kinds[name]) for name, count in entries.items()}
        for model, entries in won.items()
    }
    record = run_record(entries=tuple(kinds), models={"original": "a" * 64, "retrofit": "b" * 64}, **changes)
    return evaluate(record, outcomes), outcomes


class Checker(HTMLParser):
    """Counts tags, and refuses what is closed wrongly."""

    VOID = frozenset({"meta", "br", "img", "path", "use", "rect", "circle", "line", "polygon", "stop"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: object) -> None:
        assert tag

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "text"):
            self.text.append(data)


def words(html: str) -> str:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return " ".join(" ".join(checker.text).split())


def test_the_page_is_whole_and_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    evaluation, outcomes = made()
    store = Store(tmp_path / "run")
    store.open(evaluation.run)
    for number, item in enumerate(item for entries in outcomes.values() for item in entries.values()):
        store.put(f"{number:03}", item, None)
    assert write_report([tmp_path / "run"], path) == evaluation
    html = path.read_text(encoding="utf-8")
    words(html)
    assert html.count("<svg") == 8
    assert "<script" not in html
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(link.startswith(("#", "data:")) for link in links), "only references within the pictures"
    assert not re.search(r"url\((?!#)", html)


def test_the_verdict_comes_first_with_evidence_and_remedy() -> None:
    text = words(page(Report(*made())))
    assert "retrofit: gradients are masked" in text
    assert "original: no sign of masking" in text
    assert text.index("Do not deploy kappa 0.5: 9 points less robust") < text.index("gradients are masked")
    assert text.index("gradients are masked") < text.index("Accuracy, worst case")
    assert "(smooth) fools 40.0 points more samples than all exact attacks together" in text
    assert "What to do: the exact gradient hides" in text


def test_figures_and_intervals_are_the_evaluations() -> None:
    evaluation, outcomes = made()
    text = words(page(Report(evaluation, outcomes)))
    assert "all attacks, linf 0.1 39.0% (30.0 to 48.8) 30.0% (21.9 to 39.6) -9.0" in text
    assert "l2 14.95%" in text


def test_a_difference_without_significance_is_no_gain() -> None:
    evaluation, outcomes = made()
    same = {"original": outcomes["original"], "retrofit": outcomes["original"]}
    renamed = {
        "original": same["original"],
        "retrofit": {
            name: Outcome.from_json({**item.to_json(), "model": "retrofit"}) for name, item in same["retrofit"].items()
        },
    }
    text = words(page(Report(evaluate(evaluation.run, renamed), renamed)))
    assert "do not differ significantly" in text


def test_findings_and_cautions_stand_above_the_figures() -> None:
    evaluation, outcomes = made()
    note = "warning: the accuracy is poor; look at --preprocess"
    report = Report(*made(samples=250, notes=(note,)))
    assert report.findings == (
        "Gradients of the retrofit are masked: what attacks with its exact gradient report is too good. Only the worst "
        "case over all attacks counts.",
    )
    assert report.cautions[:2] == (
        "not finished: 100 of 250 samples are evaluated so far; the figures are theirs",
        "the accuracy is poor; look at --preprocess",
    )
    text = words(page(report))
    assert text.index("The accuracy is poor; look at --preprocess.") < text.index("By attacker")
    assert text.index(report.findings[0]) < text.index("By attacker")
    plain = Report(evaluation, outcomes)
    assert plain.cautions == ()
    assert "Before you quote" not in words(page(plain))


def test_the_heading_names_model_and_kappa() -> None:
    named = {"original": "net.onnx", "retrofit": "net.jr.onnx"}
    assert page(Report(*made(files=named))).count("Robustness of net.onnx with JumpReLU, kappa 0.5</h1>") == 1
    evaluation, outcomes = made()
    run = RunRecord.from_json({**evaluation.run.to_json(), "models": {"model": "a" * 64}, "kappas": {}})
    alone = {"model": outcomes["original"]}
    html = page(Report(evaluate(run, alone), alone))
    assert "Robustness of a classifier</h1>" in html
    text = words(html)
    assert not re.search("original|dashed|hatched|difference|points", text.partition("Glossary")[0]), (
        "nothing is compared"
    )
    assert "the attacker model knows everything 39.0% (30.0 to 48.8) Can these" in text
    assert "| the attacker | model |\n| --- | --- |\n| knows everything | 39.0% (30.0 to 48.8) |\n" in as_markdown(
        Report(evaluate(run, alone), alone)
    )


def test_the_papers_protocol_is_labelled() -> None:
    text = words(page(Report(*made())))
    assert "paper/pgd paper protocol, not adaptive" in text
    assert "say nothing about an attacker who knows the defence" in text
    assert "paper protocol (non-adaptive): PGD 70.0%" in text


def test_the_paper_suite_claims_no_budget_that_it_does_not_use() -> None:
    assert "in pixel scale" in words(page(Report(*made())))
    text = words(page(Report(*made(suite="paper"))))
    assert "suite paper, with its own budgets" in text
    assert "in pixel scale" not in text


def test_names_are_escaped() -> None:
    html = page(Report(*made(data="<script>alert(1)</script>")))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_an_unfinished_run_says_so() -> None:
    assert "100 of 250 samples are evaluated so far" in words(page(Report(*made(samples=250))))


def test_equal_evaluations_are_equal_pages() -> None:
    assert page(Report(*made())) == page(Report(*made()))


@pytest.mark.parametrize("missing", ["ddn", "apgd"])
def test_suites_without_minimal_attacks_or_without_budgets(missing: str) -> None:
    evaluation, outcomes = made()
    gone = {missing} if missing == "ddn" else {"apgd", "smooth"}
    kept = {
        model: {name: item for name, item in entries.items() if name not in gone} for model, entries in outcomes.items()
    }
    run = RunRecord.from_json(
        {**evaluation.run.to_json(), "entries": [n for n in evaluation.run.entries if n not in gone]}
    )
    html = page(Report(evaluate(run, kept), kept))
    words(html)
    # Every chart is there twice, wide and narrow: bars and iterations, or security curve and least perturbation.
    assert html.count("<svg") == {"ddn": 4, "apgd": 4}[missing]


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '{"a": ' * 5000])
def test_a_damaged_record_of_the_preprocessing_is_shown_as_it_is(text: str) -> None:
    assert html._flat(text) == text
    assert html._flat('{"schema": "x/1", "layout": "NCHW"}') == "layout NCHW"


def test_pictures_are_there_with_alternatives_or_their_absence_is_explained() -> None:
    evaluation, outcomes = made()
    html = page(Report(evaluation, outcomes))
    assert "from a version that did not keep any" in words(html)
    choices = choose(evaluation, outcomes)
    examples = tuple(Example(choice, 0, 1, 0, True, "linf", 0.1) for choice in choices)
    images = np.linspace(0, 1, len(choices) * 64, dtype=np.float32).reshape(len(choices), 1, 8, 8)
    kept = ExampleSet(ExampleTable(("zero", "one"), examples), images, 1 - images)
    html = page(Report(evaluation, outcomes, kept=kept))
    text = words(html)
    assert "from a version that did not keep any" not in text
    assert "Image 0, 'zero': the retrofit says 'one' after apgd" in text
    assert text.index("Original: easiest to fool") < text.index("Retrofit: hardest to fool")
    found = re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="([^"]+)">', html)
    assert len(found) == html.count("<img") == 3 * len(choices) == 36
    assert "Image 0 after the attack: classified as &#39;one&#39;" in found
