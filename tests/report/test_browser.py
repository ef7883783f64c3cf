"""The page in a browser, wide and on a phone, light and dark: what a person sees, and can reach.

The report is made as `make demo` makes it, of the embedded digits, with shorter attacks. axe-core is looked for in
node_modules (npm install axe-core) or where JR_ONNX_AXE says; nothing is downloaded.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.attack.suite.evaluate import evaluate_robustness
from jr_onnx.data import load
from jr_onnx.report import page
from jr_onnx.results import gather
from tests.attack.suite.small import patched, request, short
from tests.results import records

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "exported" / "digits_cnn.onnx"
SECTIONS = [
    "By attacker", "Robust accuracy at every budget", "Verdict on the gradients", "Adversarial examples",
    "Accuracy, worst case per sample", "Least perturbation", "Accuracy against iterations", "Trade-off over kappa",
    "Latency", "Hardening", "Figure 7(a): source kappa against target kappa", "Every attack", "How this was measured",
]  # fmt: skip
# A window of a headless Chromium is at least 500 pixels wide, so the page is looked at in a frame.
_OUTER = """<!DOCTYPE html><html style="color-scheme: light dark"><body style="margin: 0">
<iframe id="frame" style="width: {width}px; height: 844px; border: 0" srcdoc="{page}"></iframe></body></html>"""
_SCRIPT = Path(__file__).with_name("browser.js")


@cache
def browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("there is no Chromium")
    return found


def axe() -> str:
    path = Path(os.environ.get("JR_ONNX_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip("axe-core is not installed (npm install axe-core, or JR_ONNX_AXE)")
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two budgets on the digits, with the results of the other commands."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    browser()
    axe()
    folder = tmp_path_factory.mktemp("runs")
    data = load("digits", split="test", limit=12)
    for eps in (0.1, 0.05):
        wanted = request(folder, model=MODEL, data=data, eps=eps, out=folder / f"{eps:g}", block=12)
        with patched(short):
            evaluate_robustness(wanted)
    results = (records.tuning(), records.benchmark(), records.hardened(), records.matrix())
    return page(gather([folder / "0.1", folder / "0.05"], results))


def looked_at(text: str, folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """Open a page in a frame of this width, and return what the script in it found."""
    scripts = f"<script>{axe()}</script><script>{_SCRIPT.read_text(encoding='utf-8')}</script>"
    inner = text.replace("</body>", f"{scripts}</body>")
    path = folder / "outer.html"
    path.write_text(_OUTER.format(width=width, page=html.escape(inner)), encoding="utf-8")
    words = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--hide-scrollbars",
             f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000"]  # fmt: skip
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [*words, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, "the page's script did not finish"
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_what_a_person_sees_and_reaches(report: str, tmp_path: Path, width: int, dark: bool) -> None:
    found = looked_at(report, tmp_path, width, dark=dark)
    assert (found["width"], found["dark"]) == (width, dark)
    assert [item for item in found["violations"] if item[1] in ("serious", "critical")] == []
    assert found["overflow"] <= 0, "the page itself never scrolls sideways"
    assert found["loaded"] == [], "nothing is asked of the network"
    assert found["sections"] == SECTIONS
    assert "kappa 0.3" in found["first"], "the recommendation comes first"
    assert len(found["pictures"]) == 3 * report.count('class="triple"') > 27
    assert all(described and drawn for described, drawn in found["pictures"])
    assert found["charts"] == [1] * 8, "every chart is seen once, in the layout of this width"
    assert found["text"] >= 8, "the smallest text of a chart, in pixels"
    assert found["hidden_cues"] == 0, "a table that scrolls says so"
    assert found["unreachable"] == 0, "the keyboard reaches what scrolls and what opens"
    assert found["closed"]
    assert found["opened"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_charts_take_the_colours_of_the_page(report: str, tmp_path: Path, dark: bool) -> None:
    found = looked_at(report, tmp_path, 1280, dark=dark)
    assert len(found["inks"]) == 1
    brightness = {name: sum(map(int, re.findall(r"\d+", text)[:3])) for name, text in
                  (("ink", found["inks"][0]), ("paper", found["paper"]))}  # fmt: skip
    assert (brightness["paper"] < 150, brightness["ink"] > 600) == (dark, dark)
