"""Sections of a report made of other commands' results: text, tables and charts say what the records say."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from jr_onnx.errors import InputError
from jr_onnx.evaluation.statistics import wilson
from jr_onnx.report import Section
from jr_onnx.report.svg import NARROW
from jr_onnx.results import section_of
from jr_onnx.tune.plot import draw as draw_trade_off
from tests.evaluation.builders import run_record
from tests.results import records

MAKERS = (
    records.tuning, records.benchmark, records.hardening, records.hardened, records.matrix, records.iterations,
    records.table, records.activations,
)  # fmt: skip


def cell(section: Section, row: int, column: str) -> str:
    return section.rows[row][section.columns.index(column)]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_every_section_is_whole(maker: object) -> None:
    record = maker()  # type: ignore[operator]
    section = section_of(record)
    assert section.record is record
    assert all(len(row) == len(section.columns) for row in section.rows)
    assert bool(section.rows) == bool(section.columns)
    if section.draw is None:
        return
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    wide, narrow = (ElementTree.fromstring(section.draw(way)) for way in (False, True))
    narrowest = 72 * NARROW
    widths = [float(found.attrib["viewBox"].split()[2]) for found in (wide, narrow)]
    assert widths[1] <= min(narrowest, widths[0])
    assert all(found.attrib["aria-label"] and found.attrib["role"] == "img" for found in (wide, narrow))


def test_the_trade_off_names_the_map_of_a_candidate_and_a_search_per_site() -> None:
    found = records.tuning()
    for name, label, said in (("channels.json", "channels.json", "the kappas of channels.json"),
                              ("", "per site", "a kappa per site")):  # fmt: skip
        point = replace(found.points[1], kappa=None, name=name)
        section = section_of(replace(found, points=(found.points[0], point)))
        assert section.rows[1][0] == label
        assert section.text[0] == f"Chosen on validation images: {said}. Reason: the largest gain."


def test_the_trade_off_has_its_intervals() -> None:
    section = section_of(records.tuning())
    assert section.text[0] == "Chosen on validation images: kappa 0.5. Reason: the largest gain."
    assert cell(section, 1, "gain over kappa 0, points (95%)") == "+20.0 (+10.0 to +30.0)"
    assert (section.rows[1][-1], section.rows[2][-1]) == ("recommended", "costs too much")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for objective, expected in (("adaptive", wilson(30, 50)), ("paper", (0.5, 0.7))):
        figure = draw_trade_off(records.tuning(objective))
        _, (bars,) = figure.axes[-1].containers[-1].lines[1:]
        ((_, low), (_, high)) = bars.get_segments()[1]
        assert (low, high) == pytest.approx(expected)


def test_latency_names_case_machine_and_warning() -> None:
    section = section_of(records.benchmark())
    assert cell(section, 1, "time relative to the original (95%)") == "1.210 (1.150 to 1.260)"
    assert cell(section, 1, "case") == "batch 8, 1 thread, cpu"
    assert "a chip, 2 cores, ONNX Runtime 1.32" in section.text[0]
    assert section.text[1] == "The machine was busy."


def test_hardening_shows_the_contest_or_the_epochs() -> None:
    section = section_of(records.hardened())
    assert [row[0] for row in section.rows] == ["original", "hardened"]
    assert cell(section, 1, "against original, points (95%)").startswith("-9.0 (")
    assert "deploy the hardened model (net.hardened.onnx)" in section.text[-1]
    alone = section_of(records.hardening())
    assert alone.rows[2] == ("2", "96.0%", "70.0%", "72.0%", "kept")
    assert "under attack 10.0% before and 70.0% after" in alone.text[1]


def test_reproduced_items_keep_the_papers_figures() -> None:
    assert section_of(records.table()).rows == (("base", "61.00 / 60.00"), ("DF", "12.0"))
    assert section_of(records.matrix()).rows[0] == ("gray box, PGD until fooled: from kappa 0", "3.00", "80.00")
    assert section_of(records.activations()).rows == ()


def test_a_title_cannot_break_out_of_the_chart() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from dataclasses import replace

    section = section_of(replace(records.matrix(), title='"><script>alert(1)</script>'))
    assert section.draw is not None
    assert "<script" not in re.sub(r"<style.*?</style>", "", section.draw(False), flags=re.DOTALL)


def test_findings_say_what_a_result_means_for_the_decision() -> None:
    tuning, bench = records.tuning(), records.benchmark()
    assert section_of(tuning).finding == "Tuning on validation images recommends kappa 0.5."
    assert section_of(replace(tuning, recommended=0)).finding.endswith("recommends kappa 0, which is ReLU.")
    assert section_of(bench).finding == (
        "The fastest retrofit (thresholded) takes 1.21 times as long to run as the original."
    )
    (case,) = bench.cases
    slower = replace(case, rows=(case.rows[0], replace(case.rows[1], variant="where", ratio=1.5)))
    assert "(thresholded or where) takes 1.21 to 1.50 times" in section_of(replace(bench, cases=(slower, case))).finding
    assert section_of(replace(bench, cases=(replace(case, rows=case.rows[:1]),))).finding == ""
    hardening = records.hardening()
    assert section_of(hardening).finding == (
        "Adversarial training raised accuracy under attack on validation images: 10.0% before, 70.0% after; clean "
        "accuracy went from 99.0% to 96.0%."
    )
    in_vain = replace(hardening, rows=(replace(hardening.rows[0], robust=0.7), *hardening.rows[1:]))
    assert "did not raise accuracy under attack on validation images: 70.0% before" in section_of(in_vain).finding
    held = records.hardened()
    assert section_of(held).finding == (
        "Adversarial training helps: deploy net.hardened.onnx, which is right on 30.0% of the images attacked within "
        "linf 0.1, the original on 39.0%."
    )
    assert held.contest is not None
    kept = replace(held, contest=replace(held.contest, chosen="original", reason="nothing gains"))
    assert section_of(kept).finding == "After adversarial training, still deploy the original model: nothing gains."
    assert section_of(records.matrix()).finding == ""


def test_other_records_have_no_section() -> None:
    with pytest.raises(InputError, match=r"no section for a jr_onnx\.attack_run/1 record"):
        section_of(run_record())
