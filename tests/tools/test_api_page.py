"""docs/api.md is what the docstrings of the public names say."""

from __future__ import annotations

import re

import jr_onnx
from tools.api_page import PAGE, page, render


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.api_page --write"


def test_every_public_name_is_on_it_once() -> None:
    names = re.findall(r"^### `(\w+)`$", page(), re.MULTILINE)
    assert sorted(names) == sorted(set(jr_onnx.__all__) - {"__version__", "api"})


def test_the_calls_and_their_results_are_on_it() -> None:
    names = re.findall(r"^### `api\.(\w+)`$", page(), re.MULTILINE)
    assert names == ["Shown", "AttackRun", "Written", "Tuning", "Benchmark"]
    assert "\n```python\nattack(\n    model: str | Path,\n" in page()
    assert "    norm: Literal['linf', 'l2', 'l1'] = 'linf'," in page()


def test_sections_become_lists() -> None:
    docstring = (
        "Do a thing.\n\nMore.\n\nArgs:\n    one: The first,\n        long.\n    **rest: Others.\n\nReturns:\n    It."
    )
    assert render(docstring) == (
        "Do a thing.\n\nMore.\n\n**Args**\n\n- `one`: The first,\n  long.\n- `**rest`: Others.\n\n**Returns**\n\nIt.\n"
    )
