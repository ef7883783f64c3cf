"""What is said of a budget and of the number of samples, and one meaning per column."""

from __future__ import annotations

from pathlib import Path

import pytest

from jr_onnx.cli.evaluation import show
from jr_onnx.evaluation.advice import advice, least_difference
from jr_onnx.evaluation.statistics import mcnemar
from tests.attack.suite import small


def evaluated(folder: Path, eps: float) -> tuple[str, ...]:
    with small.patched(small.handful):
        return advice(small.evaluated(small.request(folder, eps=eps))[1])


def test_a_budget_that_tells_nothing_is_named(tmp_path: Path) -> None:
    large, small_one = evaluated(tmp_path / "large", 0.9), evaluated(tmp_path / "small", 1e-5)
    assert any("the budget linf 0.9 is too large to tell models apart" in line for line in large)
    assert any("the budget linf 1e-05 is too small to tell models apart" in line for line in small_one)
    assert any("23 samples are few: only differences of 26% and more" in line for line in large)


def test_a_handful_of_samples_says_nothing_of_a_budget(tmp_path: Path) -> None:
    with small.patched(small.handful):
        wanted = small.request(tmp_path, eps=1e-5, data=small.images(2, seed=1), plan=None, force=True)
        found = advice(small.evaluated(wanted)[1])
    assert any("2 samples are too few to judge a budget by" in line for line in found)
    assert not any("too small to tell" in line or "too large to tell" in line for line in found)


def test_the_least_difference_is_that_of_the_test() -> None:
    import numpy as np

    for samples in (20, 100):
        changed = round(least_difference(samples) * samples)
        before = np.zeros(samples, dtype=bool)
        assert mcnemar(np.arange(samples) < changed, before) < 0.05 <= mcnemar(np.arange(samples) < changed - 1, before)
    assert least_difference(0) == least_difference(3) == 1.0


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
