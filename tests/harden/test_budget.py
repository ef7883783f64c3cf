"""The budget grows while the network can follow, and no further than that."""

from __future__ import annotations

import pytest

from jr_onnx.harden.budget import GrowingBudget

LOW, HIGH = 1.0, 2.5  # the loss of a constant answer among 10 classes is 2.3


def test_a_budget_without_a_ramp_is_whole_whatever_the_loss() -> None:
    budget = GrowingBudget(10)
    budget.restart(0.0)
    budget.follow([HIGH])
    assert budget.share == 1.0


def test_it_grows_step_by_step_to_the_whole_one() -> None:
    budget = GrowingBudget(10)
    budget.restart(8.0)
    assert budget.share == 1 / 8
    budget.follow([LOW])
    assert budget.share == 2 / 8
    budget.follow([LOW] * 5)
    assert budget.share == 7 / 8
    budget.follow([LOW] * 5)
    assert budget.share == 1.0


def test_it_shrinks_while_the_mean_loss_is_near_that_of_a_constant_answer() -> None:
    budget = GrowingBudget(10)
    budget.restart(8.0)
    budget.follow([LOW] * 4)
    budget.follow([HIGH, HIGH])
    assert budget.share == pytest.approx(3 / 8)
    budget.follow([HIGH] * 20)
    assert budget.share == 1 / 8
    budget.restart(4.0)
    assert budget.share == 1 / 4
