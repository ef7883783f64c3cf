"""`jr-onnx reproduce`: what the list shows, and what is refused; tests/reproduce covers the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Jr = Callable[..., Any]


def test_the_list_and_the_refusals_of_the_command(jr: Jr, tmp_path: Path) -> None:
    listed = jr("reproduce", "--list")
    assert listed.exit_code == 0
    assert "figure-8d" in listed.out
    assert "works" in listed.out
    refused = jr("reproduce", "--table", "2a", "-o", tmp_path / "out")
    assert refused.exit_code != 0
    assert "no weights" in refused.err
    assert not (tmp_path / "out").exists()
    assert "mnist:DIR or cifar10:DIR" in jr("reproduce", "--data", "digits").err
    assert "pgd, df, df2, tr" in jr("reproduce", "--figure", "3", "--attacks", "cw", "-o", tmp_path / "out").err
