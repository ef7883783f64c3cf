"""The report of `make demo`, made once for all tests: the very commands of the demo, in a folder of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tools import demo


def demo_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the results of the demo's evaluation; processes that test side by side share it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "demo"
    with FileLock(root / "demo.lock"):
        if not (folder / "report.html").is_file():
            folder.mkdir(exist_ok=True)
            demo.copy_model(folder)
            demo.evaluate(folder)
    return folder
