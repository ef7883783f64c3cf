from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jr_onnx.attack.norms import (
    NORMS,
    Ball,
    distances,
    dual_lengths,
    lengths,
    project_l1_box,
    relative_distances,
    require_norm,
    steepest,
)
from jr_onnx.errors import InputError

seeds = st.integers(0, 2**32 - 1)
radii = st.floats(0.0, 20.0) | st.floats(1e-6, 1e-2)


def points(seed: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(5, 2, 3, 3, generator=generator)
    centre[0].round_()  # a sample that lies in the corners of the box
    return centre, centre + scale * torch.randn(centre.shape, generator=generator)


@given(seed=seeds, eps=radii, scale=st.floats(1e-4, 100.0), norm=st.sampled_from(NORMS))
@settings(max_examples=150, deadline=None)
def test_an_exact_projection_keeps_to_the_ball_and_the_box(seed: int, eps: float, scale: float, norm: str) -> None:
    centre, x = points(seed, scale)
    projected = Ball(centre, eps, norm, 0.0, 1.0).project_exactly(x)
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert bool((lengths(projected.double() - centre.double(), norm) <= eps).all())


@given(seed=seeds, eps=st.floats(1e-3, 5.0), norm=st.sampled_from(NORMS))
@settings(max_examples=60, deadline=None)
def test_projecting_twice_is_projecting_once(seed: int, eps: float, norm: str) -> None:
    centre, x = points(seed, 3.0)
    ball = Ball(centre, eps, norm, 0.0, 1.0)
    once = ball.project_exactly(x)
    # One more pass may shorten by the factor 1 - 2^-20 that made the norm exact, and by float rounding.
    assert torch.allclose(ball.project_exactly(once), once, rtol=0, atol=4e-6)


@given(seed=seeds, eps=st.floats(0.05, 5.0))
@settings(max_examples=60, deadline=None)
def test_the_l1_projection_is_the_nearest_feasible_point(seed: int, eps: float) -> None:
    centre, x = points(seed, 1.0)
    centre, x = centre.double(), x.double()
    delta = project_l1_box(x - centre, -centre, 1 - centre, eps)
    generator = torch.Generator().manual_seed(seed ^ 1)
    for _ in range(20):
        other = torch.rand(x.shape, generator=generator, dtype=torch.float64) - centre
        other *= (eps / lengths(other, "l1").clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1)
        # Any point between the projection and a feasible one is feasible, and no nearer to x.
        for share in (0.01, 1.0):
            mixed = delta + share * (other - delta)
            nearer = lengths(x - centre - mixed, "l2") - lengths(x - centre - delta, "l2")
            assert bool((nearer > -1e-9).all())


def test_the_bound_of_a_tiny_pixel_is_exact() -> None:
    # 0.1232 - 0.12324 is exact in float32, so that the rounding of eps alone decides: one float is 4e-12 there.
    centre = torch.full((1, 1, 1, 1), 0.1232)
    ball = Ball(centre, 0.12324, "linf", -1.0, 1.0)
    moved = ball.project_exactly(torch.full_like(centre, -1.0))
    assert float((moved.double() - centre.double()).abs()) <= 0.12324


@pytest.mark.parametrize("norm", NORMS)
def test_a_steepest_step_has_unit_length(norm: str) -> None:
    gradient = torch.randn(4, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    step = steepest(gradient, norm)
    assert torch.allclose(lengths(step, norm), torch.ones(4), atol=1e-6)
    assert bool(((step * gradient).flatten(1).sum(1) > 0).all())
    assert not steepest(torch.zeros_like(gradient), norm).any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_dual_norm_bounds_the_gain_of_a_unit_step(norm: str) -> None:
    gradient = torch.randn(4, 1, 10, 10, generator=torch.Generator().manual_seed(1)).double()
    gain = (steepest(gradient, norm, density=0.01) * gradient).flatten(1).sum(1)
    assert torch.allclose(gain, dual_lengths(gradient, norm))


def test_relative_distances_divide_by_the_image() -> None:
    images = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]], [[[0.0, 0.0]]]])
    moved = torch.tensor([[[[3.0, -3.0]]], [[[0.0, 0.0]]], [[[1.0, 0.0]]]])
    found = relative_distances(distances(moved, images), images)
    assert found["l2"].tolist() == [0.2, 0.0, math.inf]
    assert found["linf"].tolist() == [0.25, 0.0, math.inf]
    assert found["l1"].tolist() == [pytest.approx(1 / 7), 0.0, math.inf]


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(InputError, match="the norm is 'l7', expected one of linf, l2, l1"):
        require_norm("l7")
