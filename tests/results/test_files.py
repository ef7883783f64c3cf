"""Any result file may be given to a report: each is recognised, and what is none is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from jr_onnx import provenance
from jr_onnx.errors import InputError
from jr_onnx.evaluation.store import Store
from jr_onnx.records import Record, dumps
from jr_onnx.report import page
from jr_onnx.report.texts import as_json, as_markdown
from jr_onnx.results import gather, write_report
from tests.evaluation.builders import run_record
from tests.report.test_report import made, words
from tests.results import records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of an evaluation of net.onnx."""
    evaluation, outcomes = made(files={"original": "net.onnx", "retrofit": "net.jr.onnx"})
    store = Store(tmp_path / "run")
    store.open(evaluation.run)
    for number, item in enumerate(item for entries in outcomes.values() for item in entries.values()):
        store.put(f"{number:03}", item, None)
    return tmp_path / "run"


def hardened_model(path: Path, entry: str) -> Path:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, {provenance.HARDENED_KEY: entry} if entry else {})
    onnx.save(model, path)
    return path


def test_every_result_becomes_a_section_in_the_order_given(run: Path, tmp_path: Path) -> None:
    files = []
    for name, record in (("b", records.benchmark()), ("t", records.tuning()), ("h", records.hardened())):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(dumps(record), encoding="utf-8")
    reproduced = tmp_path / "reproduced"
    reproduced.mkdir()
    (reproduced / "figure-7a.json").write_text(dumps(records.matrix()), encoding="utf-8")
    (reproduced / "figure-7a.csv").write_text("row\n", encoding="utf-8")
    (reproduced / "state.json").write_text("[]", encoding="utf-8")
    model = hardened_model(tmp_path / "net.hardened.onnx", records.hardening().as_metadata())
    report = gather([run, *files, reproduced, model], [records.iterations()])
    assert [section.title.partition(":")[0] for section in report.sections] == [
        "Latency", "Trade-off over kappa", "Adversarial training", "Figure 7(a)", "Adversarial training", "Figure 8(a)",
    ]  # fmt: skip
    foreign = [
        section.title for section in report.sections if "another file than the attacks" in " ".join(section.text)
    ]
    assert foreign == ["Figure 7(a): source kappa against target kappa"]
    text = as_markdown(report)
    assert "## Latency" in text
    assert "| batch 8, 1 thread, cpu | thresholded |" in text
    assert [item["schema"] for item in json.loads(as_json(report))["results"]][:2] == [
        "jr_onnx.bench/1",
        "jr_onnx.tune/1",
    ]


def test_the_page_shows_sections_with_charts_and_tables(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report = gather([run], [records.tuning(), records.matrix()])
    html = page(report)
    text = words(html)
    assert "Chosen on validation images: kappa 0.5" in text
    assert "This is about another file than the attacks above: other.onnx." in text
    assert text.index("Accuracy against iterations") < text.index("Trade-off over kappa") < text.index("Every attack")
    assert html.count("<svg") == 12
    html = page(gather([run], [replace(records.tuning(), reason="<script>alert(1)</script>")]))
    assert "<script" not in html


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "{", "it is not JSON"),
        ("x.json", "[1]", "it names no schema"),
        ("x.json", '{"schema": "other/1"}', "its schema is 'other/1'"),
        ("x.json", '{"schema": "jr_onnx.tune/1"}', r"the field 'model' is missing"),
        ("x.json", '{"schema": "jr_onnx.tune/99"}', "expected 'jr_onnx.tune/1'"),
        ("x.bin", b"\xff\xfe\x00", "it is not JSON"),
        ("evaluation.json", '{"schema": "jr_onnx.evaluation/1"}', "is the summary of an evaluation"),
    ],
)
def test_what_is_no_result_is_refused(run: Path, tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as caught:
        write_report([run, path], tmp_path / "report.json", "json")
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.json").exists()


def edited(record: Record, *path: str | int, to: object) -> str:
    """Return a record as JSON in which one value is another."""
    value = json.loads(dumps(record))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return json.dumps(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (edited(records.tuning(), "points", to=[]), "contradicts itself: .*out of range"),
        (edited(records.tuning(), "recommended", to=7), "contradicts itself: .*out of range"),
        (edited(records.hardening(), "best", to=9), "contradicts itself: .*out of range"),
        (edited(records.hardened(), "contest", "names", to={}), "contradicts itself: .*original|hardened"),
        (edited(records.tuning(), "model", to="\ud800"), "not JSON"),
        (edited(records.tuning(), "samples", to=10**400), "an integer of 1329 bits"),
        (edited(records.hardening(), "recipe", "steps", to=10**400), "an integer of 1329 bits"),
        (edited(records.table(), "columns", to=["x"] * 4000), "4000 columns, expected at most 4096"),
        (edited(records.benchmark(), "kappa", to=float("nan")), "not JSON"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(run: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        write_report([run, path], tmp_path / "report.json", "json")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        edited(records.tuning(), "measure", to="$\\frac$"),
        edited(records.tuning(), "points", 0, "clean", to="nan"),
        edited(records.benchmark(), "cases", 0, "rows", 1, "session", to="odd"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused(run: Path, tmp_path: Path, content: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    (section,) = gather([run, path]).sections
    assert section.draw is not None
    with pytest.raises(InputError, match="cannot be shown"):
        section.draw(False)


def test_models_and_folders_without_results_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jr-onnx harden did not write"):
        gather([run, hardened_model(tmp_path / "plain.onnx", "")])
    with pytest.raises(InputError, match="is not JSON"):
        gather([run, hardened_model(tmp_path / "odd.onnx", "{")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no results of jr-onnx"):
        gather([run, tmp_path / "empty"])
    with pytest.raises(InputError, match="cannot read"):
        gather([run, tmp_path / "absent.json"])


def test_a_report_needs_a_run_of_attacks(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    path.write_text(dumps(records.tuning()), encoding="utf-8")
    with pytest.raises(InputError, match="holds no evaluation"):
        gather([path])
    with pytest.raises(InputError, match="a report needs a folder of results"):
        gather([])


def test_runs_of_other_models_are_still_refused(run: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.open(run_record())
    with pytest.raises(InputError, match="is about other models"):
        gather([run, tmp_path / "other"])
