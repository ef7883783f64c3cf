"""One call for each command, and the notebook that walks through them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jr_onnx import api
from jr_onnx.data import load

pytest.importorskip("torch", reason="torch is not installed")

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "exported" / "digits_cnn.onnx"
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("api") / "attacks"
    return api.attack(MODEL, "digits", kappa=0.5, eps=0.1, limit=12, black_box=True, output=out)


def test_a_result_is_short_and_a_table_in_a_notebook(attacked: Any) -> None:
    assert repr(attacked) == attacked.report.recommendation
    assert attacked.evaluation.run.command == "", "no command line made it"
    shown = attacked._repr_html_()
    assert shown.count("<tr>") == 1 + len(attacked.rows())
    assert "square/linf" in shown
    assert {row["model"] for row in attacked.rows()} == {"original", "retrofit"}
    for row in attacked.rows():
        assert row["low"] <= row["robust"] <= row["high"]


def test_a_result_is_a_data_frame(attacked: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = attacked.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(attacked.rows())


def test_the_call_says_what_the_command_says(attacked: Any, tmp_path: Path) -> None:
    words = [
        "attack",
        str(MODEL),
        "--kappa",
        "0.5",
        "--eps",
        "0.1",
        "--limit",
        "12",
        "--black-box",
        "-o",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "jr_onnx", *words, "--json"], capture_output=True, text=True, check=True
    )
    models = json.loads(done.stdout)["models"]
    for mine, other in zip(attacked.evaluation.models, models, strict=True):
        assert [item.robust.count for item in mine.entries] == [item["robust"]["count"] for item in other["entries"]]


def test_data_can_be_images_in_memory(attacked: Any) -> None:
    run = api.attack(MODEL, load("digits", limit=12), kappa=0.5, eps=0.1, black_box=True)
    assert run.evaluation.models == attacked.evaluation.models


def test_a_report_is_written_from_a_run_or_its_folder(attacked: Any, tmp_path: Path) -> None:
    one = api.report(attacked, tmp_path / "one.md", form="md")
    other = api.report(attacked.folder, tmp_path / "other.md", form="md")
    assert one.path.read_text(encoding="utf-8") == other.path.read_text(encoding="utf-8")
    assert repr(one) == f"{tmp_path / 'one.md'}: {attacked.report.recommendation}"
    assert attacked.report.recommendation in one.path.read_text(encoding="utf-8")


def test_a_report_takes_other_results_and_shows_its_page(attacked: Any, tmp_path: Path) -> None:
    measured = api.bench(MODEL, kappa=0.5, rounds=2, footprint=False)
    made = api.report(attacked, tmp_path / "report.json", form="json", results=[measured])
    assert json.loads(made.path.read_text(encoding="utf-8"))["results"] == [measured.result.to_json()]
    assert made.report.examples is not None
    assert repr(made.report) == made.report.recommendation
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shown = made._repr_html_()
    assert shown.startswith("<iframe ")
    assert shown.count("<") == 2, "the page is escaped in its frame"
    assert "Latency" in shown
    assert "Adversarial examples" in shown


def test_tune_and_bench_are_one_call_each() -> None:
    tuned = api.tune(MODEL, "digits", grid=(0.1,), objective="black-box", attacked=4, limit=40)
    assert [row["kappa"] for row in tuned.rows()] == [0.0, 0.1]
    assert repr(tuned).startswith(f"kappa {tuned.kappa:g}: ")
    measured = api.bench(MODEL, kappa=0.5, rounds=2, footprint=False)
    assert len(measured.rows()) == len(measured.result.cases[0].rows)
    assert "sites" in repr(measured)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JR_ONNX_MODEL", str(MODEL))
    names: dict[str, Any] = {"__name__": "__notebook__"}
    shown = []
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "outputs are left out of the file"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        value = None
        if isinstance(last, ast.Expr):
            tree.body.pop()
            value = ast.Expression(last.value)
        exec(compile(tree, "notebook", "exec"), names)
        if value is not None:
            result = eval(compile(value, "notebook", "eval"), names)
            shown.append(getattr(result, "_repr_html_", result.__repr__)())
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sum(bool(re.search("<table>", text)) for text in shown) == 3
