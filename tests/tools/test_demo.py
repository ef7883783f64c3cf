"""The demo's evaluation runs, and its report holds all of it in every format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.demo_report import demo_folder
from tools import demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("matplotlib", "jinja2", "torch"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    return demo_folder(tmp_path_factory)


def test_every_command_left_its_result(folder: Path) -> None:
    assert len(demo.RESULTS) == len(demo.EVALUATION)
    for name in demo.RESULTS:
        assert (
            sum(command.endswith(f"{{out}}/{name}") or f"{{out}}/{name} " in command for command in demo.EVALUATION)
            == 1
        )
        assert (folder / name).exists()


def test_all_formats_say_the_same(folder: Path) -> None:
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    text, page = ((folder / f"report.{form}").read_text(encoding="utf-8") for form in ("md", "html"))
    assert f"**{content['recommendation']}**" in text
    assert f">{content['recommendation']}</p>" in page
    assert len(content["findings"]) >= 3
    for line in content["findings"]:
        assert f"- {line}" in text
        assert f"<li>{line.replace(chr(39), '&#39;')}</li>" in page
    assert len(content["others"]) == 1
    for title in ("By attacker", "Robust accuracy at every budget", "Trade-off over kappa", "Adversarial training",
                  "Latency", "Least perturbation"):  # fmt: skip
        assert f"## {title}" in text
        assert f"<h2>{title}</h2>" in page
    with (folder / "report.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in content["attackers"]:
        for model, share in row["shares"].items():
            (line,) = (
                item for item in rows if (item["what"], item["model"]) == (f"attacker: {row['attacker']}", model)
            )
            assert (line["count"], line["samples"]) == (str(share["count"]), str(share["total"]))
            cell = f"{100 * share['value']:.1f}% ({100 * share['low']:.1f} to {100 * share['high']:.1f})"
            assert cell in text
    budgets = {item["eps"] for item in rows if item["what"] == "worst case: all attacks"}
    assert {"0.05", "0.1"} <= budgets
    minimising = [item for item in rows if item["what"] == "attack: ddn/l2"]
    assert len(minimising) == 2
    assert all(item["robust"] == "" and float(item["fooled"]) > 0.5 for item in minimising)
