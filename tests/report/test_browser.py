"""The report of `make demo` in a browser: what a person sees, reads aloud, reaches by keyboard, and prints.

It takes Chromium, the system's or playwright's (`python -m playwright install chromium`), and skips where there is
none. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jr_onnx.report import page as page_of
from jr_onnx.report.pictures import MOST_BYTES
from jr_onnx.results import gather
from tests.demo_report import demo_folder
from tests.results import records
from tools import demo as tool

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")
ATTACKERS = ("does not know the jump but has the original's weights", "can only query the model", "knows everything")
MODELS = ("original", "retrofit")
EVERYWHERE = pytest.mark.parametrize(
    ("width", "scheme"), [(width, scheme) for width in (1280, 768, 390) for scheme in ("light", "dark")]
)
PRINTED = 680
"""CSS pixels between the margins of A4, 180 mm."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    with sync_api.sync_playwright() as started:
        found = next((path for name in names if (path := shutil.which(name))), started.chromium.executable_path)
        if not Path(found).is_file():
            pytest.skip("there is no Chromium (apt install chromium, or python -m playwright install chromium)")
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("matplotlib", "jinja2", "torch"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    return demo_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return folder / "report.html"


@dataclass(frozen=True)
class Opened:
    """A page in the browser.

    Attributes:
        page: Playwright's.
        asked: Addresses that it asked for, but for what it holds itself.
    """

    page: Any
    asked: list[str]

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(SCRIPT)
        return found


@contextmanager
def opened(chromium: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Opened]:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, asked = context.new_page(), []
    page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
    try:
        page.goto(path.as_uri())
        yield Opened(page, asked)
    finally:
        context.close()


def brightness(colour: str) -> int:
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def row_of(found: dict[str, Any], table: str, first: str) -> dict[str, str]:
    (one,) = (item for item in found["tables"] if item["name"] == table)
    (row,) = (row for row in one["rows"] if row[0] == first)
    return dict(zip(one["head"], row, strict=True))


def assert_readable_without_colour(legends: list[list[list[str]]]) -> None:
    for entries in legends:
        names, looks = zip(*entries, strict=True)
        assert len(set(looks)) == len(names), f"{names} differ in colour alone"


@EVERYWHERE
def test_the_page_fits_every_screen_and_both_styles(chromium: Any, report: Path, width: int, scheme: str) -> None:
    with opened(chromium, report, width=width, scheme=scheme) as it:
        found = it.seen()
        assert found["width"] == width
        assert found["overflow"] <= 0, "the page itself never scrolls sideways"
        assert it.asked == [report.as_uri()], "nothing is asked of the network"
        assert found["scripts"] == 0
        assert found["charts"] == [1] * 7, "every chart is seen once, in the layout of this width"
        assert all(re.match("img: [A-Z]", name) for name in found["named"])
        assert found["smallest"] >= (10 if width == 390 else 9), "the smallest text of a chart, in pixels"
        assert [item["name"] for item in found["tables"] if item["scrolls"] != item["cue"]] == []
        assert width == 768 or any(item["scrolls"] for item in found["tables"]) == (width == 390)
        (ink,) = found["inks"]
        assert (brightness(found["paper"]) < 150, brightness(ink) > 600) == ((scheme == "dark"),) * 2
        violations = axe.Axe().run(it.page).response["violations"]
        assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in violations] == []


def test_what_decides_comes_first(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as it:
        text = it.page.inner_text("main")
    heading, decision, *rest = (line for line in text.split("\n") if line.strip())
    assert heading == "Robustness of digits.onnx with JumpReLU, kappa 0.5"
    assert re.match(r"(Do not deploy kappa 0\.5|Do not expect protection from kappa 0\.5|Kappa 0\.5 helps): ", decision)
    assert re.search(r"an attacker who knows it.*\(95% interval [+-]\d+ to [+-]\d+\)", decision)
    top = "\n".join(rest[: rest.index("By attacker")])
    for needed in (
        "Tuning on validation images", "Adversarial training helps: deploy digits.hardened.onnx",
        "The fastest retrofit (", "digits.onnx", "retrofit.jr.onnx", "digits (test), 100 images",
        "suite adaptive, linf 0.1 in pixel scale", "on the output 'logits'",
        "jr-onnx attack", "--kappa 0.5 --eps 0.1 --limit 100",
    ):  # fmt: skip
        assert needed in top
    assert re.search(r"\b\d{4}-\d\d-\d\d\b", top), "the date"


def test_everything_that_the_demo_ran_is_in_it(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as it:
        found = it.seen()
        text = it.page.inner_text("main")
    assert found["headings"] == [
        "By attacker", "Can these figures be trusted?", "Robust accuracy at every budget", "Adversarial examples",
        "Accuracy against iterations", "Trade-off over kappa", "Adversarial training", "Latency",
        "Accuracy, worst case per sample", "Least perturbation", "Every attack", "How this was measured",
    ]  # fmt: skip
    share = r"\d+\.\d% \(\d+\.\d to \d+\.\d\)"
    for attacker in ATTACKERS:
        row = row_of(found, "Robust accuracy by attacker", attacker)
        assert list(row) == ["the attacker", *MODELS, "difference", "p"]
        assert all(re.fullmatch(share, row[model]) for model in MODELS)
        assert re.fullmatch(r"[+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)", row["difference"])
    budgets = "Robust accuracy at every budget"
    assert all(row_of(found, budgets, f"all attacks, linf {eps}")["retrofit"] for eps in ("0.05", "0.1"))
    content = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    linf = [curve for curve in content["curves"] if curve["norm"] == "linf"]
    assert {curve["model"] for curve in linf} == set(MODELS)
    assert all({0.05, 0.1} <= {eps for eps, _ in curve["points"]} for curve in linf), "runs at both budgets"
    assert [item["schema"].partition("/")[0] for item in content["results"]] == [
        "jr_onnx.tune", "jr_onnx.harden_result", "jr_onnx.bench",
    ]  # fmt: skip
    assert [row_of(found, "Trade-off over kappa", kappa)["verdict"] for kappa in ("0", "1")]
    assert re.fullmatch(share, row_of(found, "Adversarial training", "hardened")["robust (95%)"])
    assert "The rows at linf 0.4 are not a threat model but a check" in text, "the wide budget is explained"
    assert '"differs" counts the samples that torch and that file judge differently' in text


def test_pictures_of_every_attacker_and_both_models(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as it:
        found = it.seen()
    titles = [f"{model}: {kind} to fool" for model in ("Original", "Retrofit") for kind in ("easiest", "hardest")]
    assert [(group["attacker"], group["title"]) for group in found["groups"]] == [
        (f"An attacker who {attacker}", title) for attacker in ATTACKERS for title in titles
    ]
    images = [image for group in found["groups"] for image in group["images"]]
    assert len(images) == 3 * 3 * len(found["groups"]), "three images, each before, after, and the change"
    assert all(image["alt"] and image["drawn"] and image["embedded"] for image in images)
    assert sum(image["bytes"] for image in images) <= MOST_BYTES <= 2_000_000
    assert len(found["words"]) == len(images) / 3


def test_nothing_is_robust_and_fooled_at_once(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as it:
        found = it.seen()
    for model in MODELS:
        clean = float(row_of(found, "Accuracy, worst case per sample", "clean accuracy")[model].partition("%")[0])
        (table,) = (item for item in found["tables"] if item["name"] == f"Every attack on the {model}")
        for row in (dict(zip(table["head"], row, strict=True)) for row in table["rows"]):
            if row["robust"]:  # both are written to 0.1 %, and so is the clean accuracy
                fooled = clean / 100 * float(row["fooled"].removesuffix("%"))
                assert float(row["robust"].partition("%")[0]) + fooled == pytest.approx(clean, abs=0.16)
    for group in found["groups"]:
        for caption in group["captions"]:
            assert ("not fooled" in caption) != ("→" in caption), caption
        assert "easiest" not in group["title"] or all("→" in caption for caption in group["captions"])
    for line in found["words"]:
        assert ("none of this attacker's attacks fools" in line) != (" says " in line.partition(" Shown ")[0]), line


def test_the_keyboard_reaches_and_works_everything_in_order(chromium: Any, report: Path) -> None:
    with opened(chromium, report, width=390) as it:
        page, found = it.page, it.seen()
        assert not found["glossary"], "hidden until opened"
        places = []
        for _ in range(found["reachable"]):
            page.keyboard.press("Tab")
            where = page.evaluate(
                """() => {
                  const node = document.activeElement, style = getComputedStyle(node);
                  if (node.matches(".scroll")) node.scrollLeft = 0;
                  return { top: node.getBoundingClientRect().top + scrollY,
                           scrolls: node.scrollWidth > node.clientWidth + 1,
                           outline: style.outlineStyle + " " + style.outlineWidth, tag: node.tagName };
                }"""
            )
            assert where["outline"] == "solid 3px", "who uses the keyboard sees where"
            places.append(where["top"])
            if where["tag"] == "DIV" and where["scrolls"]:
                page.keyboard.press("ArrowRight")
                page.wait_for_function("() => document.activeElement.scrollLeft > 0")
            if where["tag"] == "SUMMARY":
                page.keyboard.press("Enter")
                assert page.evaluate("() => document.activeElement.parentElement.open")
                page.keyboard.press("Space")
                assert not page.evaluate("() => document.activeElement.parentElement.open")
        assert places == sorted(places), "from top to bottom"
        assert len(set(places)) == len(found["tables"]) + 4, "the tables, the words of three attackers, the glossary"
        page.keyboard.press("Enter")
        opened_now = it.seen()
        assert opened_now["glossary"]
        assert opened_now["overflow"] <= 0


def test_a_table_that_scrolls_keeps_its_first_column_in_view(chromium: Any, report: Path) -> None:
    with opened(chromium, report, width=390) as it:
        left = it.page.evaluate(
            """() => [...document.querySelectorAll(".scroll")].map(node => {
              node.scrollLeft = 9999;
              const head = node.querySelector("tbody th").getBoundingClientRect();
              return [head.left - node.getBoundingClientRect().left, head.width / node.clientWidth];
            })"""
        )
    assert all(abs(place) <= 1 and share < 0.6 for place, share in left), left


def test_it_prints_whole_and_in_black(chromium: Any, report: Path) -> None:
    with opened(chromium, report, width=PRINTED, scheme="dark") as it:
        it.page.emulate_media(media="print")
        found = it.seen()
        assert brightness(found["paper"]) == 3 * 255, "paper is white in the dark style too"
        assert found["inks"] == ["rgb(0, 0, 0)"]
        assert found["overflow"] <= 0
        assert [item["name"] for item in found["tables"] if item["scrolls"] or item["cue"]] == [], (
            "paper does not scroll"
        )
        assert found["glossary"], "nobody can open it on paper"
        assert found["charts"] == [1] * 7
        printed = it.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 16


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_are_readable_without_colour(chromium: Any, report: Path, width: int) -> None:
    with opened(chromium, report, width=width) as it:
        legends = it.seen()["legends"]
    assert len(legends) == 6, "all charts but that of latencies, whose bars are named"
    assert all(len(entries) > 1 for entries in legends)
    assert_readable_without_colour(legends)


@pytest.fixture(scope="module")
def reproduced(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's runs with the tables, curves and matrices of `reproduce`, which needs data that the demo lacks."""
    others = (records.matrix(), records.iterations(), records.table(), records.activations())
    path = tmp_path_factory.mktemp("reproduced") / "report.html"
    path.write_text(page_of(gather([folder / name for name in tool.RESULTS], others)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_reproduced_tables_and_figures_fit_too(chromium: Any, reproduced: Path, width: int) -> None:
    with opened(chromium, reproduced, width=width) as it:
        found = it.seen()
        assert found["charts"] == [1] * 10
        assert found["overflow"] <= 0
        assert found["smallest"] >= (8 if width == 390 else 9)
        assert "Figure 7(a): source kappa against target kappa" in found["headings"]
        assert row_of(found, "Table 1(a)", "base")["PGD"] == "61.00 / 60.00"
        assert_readable_without_colour(found["legends"])
        violations = axe.Axe().run(it.page).response["violations"]
        assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in violations] == []
