from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["data.md", "models.md"])
def test_the_python_of_the_documentation_runs(name: str) -> None:
    if name == "models.md":
        pytest.importorskip("torch")
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_documented_commands_have_the_documented_options() -> None:
    pytest.importorskip("torch")
    from tools.training.export import main as export_main
    from tools.training.train import main as train_main

    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    known = {option for main in (export_main, train_main) for item in main.params for option in item.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z-]+", text))
    assert used
    assert used <= known
