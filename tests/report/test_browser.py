"""The page in a browser: axe-core finds nothing serious, wide or narrow, light or dark.

axe-core is looked for in node_modules (npm install axe-core) or where JR_ONNX_AXE says; nothing is downloaded.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jr_onnx.report import Report, page
from tests.report.test_forms import with_transfer

ROOT = Path(__file__).resolve().parents[2]
_RUN = """
<script>{axe}</script>
<script>
axe.run(document, {{ resultTypes: ["violations"] }}).then(found => {{
  const note = document.createElement("pre");
  note.id = "axe-result";
  note.textContent = JSON.stringify({{
    violations: found.violations.map(item => [item.id, item.impact, item.nodes.map(node => node.html).slice(0, 3)]),
    width: document.documentElement.scrollWidth - window.innerWidth,
  }});
  document.body.appendChild(note);
}});
</script>
"""


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
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_has_no_serious_flaw(tmp_path: Path, width: int, dark: bool) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    chromium, script = browser(), axe()
    report: Report = with_transfer()
    text = page(report).replace("</body>", _RUN.format(axe=script.replace("</script", "<\\/script")) + "</body>")
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    words = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]  # fmt: skip
    if dark:
        words.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run(
        [*words, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    match = re.search(r'<pre id="axe-result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, "axe did not finish"
    found = json.loads(html.unescape(match[1]))
    assert [item for item in found["violations"] if item[1] in ("serious", "critical")] == []
