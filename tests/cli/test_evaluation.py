"""What the command prints of an evaluation: one meaning per column."""

from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.cli.evaluation import show
from tests.attack.suite import small


def test_a_minimising_attack_has_no_robust_accuracy_and_the_wide_rows_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small.patched(small.short):
        _, found = small.evaluated(small.request(tmp_path))
    show(found)
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("ddn/l2 "))
    assert line.count("%") == 3, "fooled, median and mean, and no robust accuracy"
    assert "what it finds within the budget counts in the worst case" in " ".join(printed.split())
    assert "are not a threat model but a check" in " ".join(printed.split())
    for figures in found.models:
        for item in figures.entries:
            if not item.minimises:
                assert item.success_rate == pytest.approx(1 - item.robust.count / figures.clean.count)
