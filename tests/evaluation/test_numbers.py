"""Numbers of a report are written alike wherever they stand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jr_onnx.evaluation.numbers import change, p_value, percent, relative, sentence, with_interval
from jr_onnx.evaluation.summary import Comparison, compare, share_of


def test_shares_and_differences_have_their_intervals() -> None:
    assert percent(0.8625) == "86.2%"
    hits = np.arange(100) < 39
    assert with_interval(share_of(hits)) == "39.0% (30.0 to 48.8)"
    assert change(compare("", hits, ~hits)).startswith("-22.0 (-")
    assert change(Comparison("", 0.0, -0.02, 0.02, 1.0)) == "+0.0 (-2.0 to +2.0)"
    assert change(Comparison("", 0.0, -1.0, 1.0, 1.0)) == "+0.0 (-100.0 to +100.0)"


def test_a_clause_becomes_a_sentence() -> None:
    assert sentence("kappa 0.5 helps iPhones", ", at a cost") == "Kappa 0.5 helps iPhones, at a cost."


@pytest.mark.parametrize(("size", "text"), [(0.1495, "14.95%"), (0.0, "0.00%"), (math.inf, "not found")])
def test_an_attack_that_fails_on_most_images_has_no_median(size: float, text: str) -> None:
    assert relative(size) == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.0312, "0.031"), (1e-4, "0.0001"), (9e-5, "< 0.0001")])
def test_tiny_p_values_are_bounded(value: float, text: str) -> None:
    assert p_value(value) == text
