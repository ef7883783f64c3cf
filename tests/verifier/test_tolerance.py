"""Bounds are measured on the original, hold for it, and are small enough to prove something."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jr_onnx.verifier import rounding_bound, verify
from jr_onnx.verifier.compare import difference, finite_difference, largest_difference
from jr_onnx.verifier.whole_model.flips import control_noise
from jr_onnx.verifier.whole_model.tolerance import FLOOR_ROUNDINGS, SAFETY, nudge
from tests.verifier.nets import image_network, network


def test_the_bound_is_the_formula() -> None:
    one = np.array([1.0, -4.0], dtype=np.float32)
    other = np.array([1.0, -4.0 + 2e-6], dtype=np.float32)
    bound = rounding_bound([(one, one), (one, other)])
    seen = float(np.abs(one.astype(np.float64) - other).max())
    assert bound.measured == seen
    assert bound.value == SAFETY * seen + FLOOR_ROUNDINGS * 2.0**-24 * 4
    assert bound.scale == 4


def test_without_a_control_only_equality_passes() -> None:
    assert rounding_bound([]).value == 0


def test_integers_do_not_round() -> None:
    labels = np.array([3, 7])
    assert rounding_bound([(labels, labels)]).value == 0


def test_a_discontinuous_original_has_a_loose_bound_that_says_so() -> None:
    one = np.array([1.0], dtype=np.float32)
    assert not rounding_bound([(one, one)]).is_loose
    assert rounding_bound([(one, one + np.float32(0.1))]).is_loose
    assert rounding_bound([(one, one * np.float32(np.inf))]).value < 1, "an overflow is no measure of rounding"


def test_a_coarser_working_type_widens_the_floor() -> None:
    one = np.ones(1, dtype=np.float32)
    assert rounding_bound([(one, one)], working="float16").value == FLOOR_ROUNDINGS * 2.0**-11


@pytest.mark.parametrize("model", [network(), network("clip"), image_network(), network(dtype="float64")])
def test_bounds_of_real_runs_are_not_vacuous(model: onnx.ModelProto) -> None:
    # 1e-3 of a pre-activation, the size of a small defect, moves these outputs by far more than the bound.
    roundoff = 2.0**-53 if model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE else 2.0**-24
    report = verify(model, 0.06, samples=4)
    assert report, report.failures
    bounds = [check.bound for check in report.checks if check.bound is not None]
    assert len(bounds) >= 3
    assert all(0 < bound < 4000 * roundoff for bound in bounds)


def test_nudging_moves_every_float_by_one_rounding_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    z = np.array([1.0, -2.0, 0.5, 0.0, np.inf, np.nan], dtype=np.float32)
    moved = nudge(z, generator)
    assert np.array_equal(moved[4:], z[4:], equal_nan=True)
    assert np.all(moved[:4] != z[:4])
    assert np.all(np.abs(moved[:3] - z[:3]) <= np.spacing(np.abs(z[:3])))
    labels = np.array([1, 2])
    assert nudge(labels, generator) is labels


def test_equality_is_of_values() -> None:
    zero, nan = np.array([0.0, np.nan], dtype=np.float32), np.array([-0.0, np.nan], dtype=np.float32)
    assert largest_difference(zero, nan) == 0
    assert largest_difference(np.array([np.inf]), np.array([np.inf])) == 0
    assert largest_difference(np.array([np.nan]), np.array([1.0])) == np.inf
    assert largest_difference(np.ones(3), np.ones(4)) == np.inf
    assert largest_difference([np.ones(2), np.ones(3)], [np.ones(2), np.full(3, 3.0)]) == 2
    assert largest_difference([{"a": 0.5}], [{"a": 0.25}]) == 0.25
    assert largest_difference(np.array(["cat"]), np.array(["dog"])) == np.inf
    assert difference(np.array([[1.0, 2.0]]), np.array([[1.0, 5.0]])).index == (0, 1)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_tolerance_is_made_of_finite_values_alone(number: float) -> None:
    one = np.array([1.0, 2.0, 3.0], np.float32)
    near = one + np.float32(1e-6)
    one_odd, both_odd = one.copy(), near.copy()
    one_odd[2] = both_odd[2] = number
    usual = rounding_bound([(one[:2], near[:2])]).value
    for pair in ((one_odd, both_odd), (one_odd, near), (one, both_odd)):
        assert 0 < finite_difference(*pair) < 2e-6
        assert rounding_bound([pair]).value < 2 * usual
        assert 0 < control_noise(*pair) < 1e-5
    assert finite_difference(np.array([number]), np.array([1.0])) == 0
    assert largest_difference(one_odd, near) == np.inf, "which stays a difference"
