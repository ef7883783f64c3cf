"""The tables of docs/compatibility.md on ways to write ReLU and on opsets say what really happens, row for row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jr_onnx.errors import JrError
from jr_onnx.rewriter import find_sites, rewrite
from jr_onnx.verifier import prove_conversion
from tests.rewriter.opsets import CASES, Case
from tests.rewriter.ways import WAYS, Way, model_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert lines, heading
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[1:]]


def of_way(way: Way) -> str:
    if way.form:
        return f"site, form `{way.form}`" + ("" if way.cap is None else f", cap {way.cap:g}")
    if way.listed == "others":
        return "named, no ReLU"
    if way.listed == "jumps":
        return "a jump of the model's own; `jr-onnx fuse` takes it"
    aside = find_sites(model_of(way)).refusals[0].kind != "refused"
    return "named, not rewritten" + ("; `--include` rewrites it" if aside else "")


def test_every_way_to_write_relu_has_its_row() -> None:
    assert [row[:2] for row in rows("Ways to write ReLU")] == [[way.name, of_way(way)] for way in WAYS]


def test_every_opset_has_its_row() -> None:
    assert [row[:2] for row in rows("Opsets and functions")] == [[case.name, case.outcome] for case in CASES]


@pytest.mark.parametrize("case", [case for case in CASES if case.is_refused], ids=lambda case: case.name)
def test_what_is_refused_is_refused_with_a_word_that_helps(case: Case) -> None:
    named = re.fullmatch(r"refused: `(.*)` (is named|helps)", case.outcome)
    assert named is not None, case.outcome
    with pytest.raises(JrError) as caught:
        rewrite(case.model(), case.kappa, prove=prove_conversion, **case.options)
    assert named[1] in str(caught.value)
    assert "\n" not in str(caught.value)
    if named[2] == "helps":
        advised = {**case.options, "opset": int(named[1].removeprefix("--opset "))}
        rewrite(case.model(), case.kappa, prove=lambda *_: "", **advised)


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_refused], ids=lambda case: case.name)
def test_what_is_rewritten_is_written_as_the_row_says(case: Case) -> None:
    _, result = rewrite(case.model(), case.kappa, prove=prove_conversion, **case.options)
    lowering = re.match(r"`(\w+)`", case.outcome)
    assert lowering is not None, case.outcome
    assert [site.lowering for site in result.sites] == [lowering[1]]
    assert (result.proof is not None) == case.outcome.endswith("converted and proved")
