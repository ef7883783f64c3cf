"""The jump: forward as `semantics` defines it, and the three derivatives against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from jr_onnx.errors import InputError, KappaError
from jr_onnx.records import dumps, loads
from jr_onnx.semantics import SiteKappa, jump_relu, round_kappa
from jr_onnx.torchnet import SiteBackward
from jr_onnx.torchnet.jump import LearnedKappa, jump

_KAPPA = round_kappa(0.3, "float32")
_CHOICES = (SiteBackward.exact(), SiteBackward.straight_through(), SiteBackward.smooth(4.0))
_finite = st.floats(width=32, allow_nan=False)


def _neighbours(kappa: float) -> list[float]:
    single = np.float32(kappa)
    return [float(np.nextafter(single, np.float32(-1))), float(single), float(np.nextafter(single, np.float32(2)))]


def _derivative(z: Tensor, kappa: SiteKappa, cap: float | None, backward: SiteBackward) -> Tensor:
    z = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad(jump(z, kappa, cap, backward).sum(), z)
    return grad


@pytest.mark.parametrize("backward", _CHOICES, ids=str)
@pytest.mark.parametrize("cap", [None, 6.0])
@given(z=st.lists(_finite, max_size=40), kappa=st.sampled_from([1e-6, 0.3, 1.0, 5.5]))
def test_forward_is_the_definition_whatever_the_derivative(
    backward: SiteBackward, cap: float | None, z: list[float], kappa: float
) -> None:
    kappa = round_kappa(kappa, "float32")
    values = np.array([*z, *_neighbours(kappa), -0.0, math.inf, -math.inf, math.nan], dtype=np.float32)
    found = jump(torch.from_numpy(values.copy()), kappa, cap, backward).numpy()
    expected = jump_relu(values, kappa, cap)
    assert found.tobytes() == expected.tobytes()


@given(z=st.lists(_finite, max_size=40))
def test_kappa_zero_is_relu(z: list[float]) -> None:
    values = torch.tensor([*z, -0.0, math.inf, -math.inf], dtype=torch.float32)
    assert torch.equal(jump(values, 0.0, None, SiteBackward.exact()), torch.relu(values))
    assert torch.equal(jump(values, 0.0, 6.0, SiteBackward.exact()), torch.clamp(values, 0.0, 6.0))


@pytest.mark.parametrize("cap", [None, 6.0])
def test_exact_derivative_is_one_above_kappa(cap: float | None) -> None:
    z = torch.tensor([-1.0, 0.0, 0.1, *_neighbours(_KAPPA), 2.0, 5.9, 6.0, 7.0])
    expected = (z > _KAPPA) & (z < (cap or math.inf))
    assert torch.equal(_derivative(z, _KAPPA, cap, SiteBackward.exact()), expected.float())


@pytest.mark.parametrize("cap", [None, 6.0])
def test_straight_through_derivative_is_one_above_zero(cap: float | None) -> None:
    z = torch.tensor([-1.0, 0.0, 1e-30, 0.1, *_neighbours(_KAPPA), 2.0, 5.9, 6.0, 7.0])
    expected = (z > 0) & (z < (cap or math.inf))
    assert torch.equal(_derivative(z, _KAPPA, cap, SiteBackward.straight_through()), expected.float())


@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("beta_kappa", [1.0, 5.0, 25.0])
def test_smooth_derivative_is_that_of_z_sigmoid(cap: float | None, beta_kappa: float) -> None:
    z = torch.linspace(-2, 5.9, 400, dtype=torch.float64, requires_grad=True)
    beta = beta_kappa / _KAPPA
    (expected,) = torch.autograd.grad((z * torch.sigmoid(beta * (z - _KAPPA))).sum(), z)
    found = _derivative(z.detach(), _KAPPA, cap, SiteBackward.smooth(beta_kappa))
    # Both are the same few operations in double precision in another order.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if cap is not None:
        above = torch.tensor([6.0, 6.5, 100.0], dtype=torch.float64)
        assert not _derivative(above, _KAPPA, cap, SiteBackward.smooth(beta_kappa)).any()


def test_smooth_derivative_has_no_denormal_numbers() -> None:
    # They would slow a CPU down many times, in this layer and in those before it.
    z = torch.linspace(-4, 1, 100_001)
    found = _derivative(z, _KAPPA, None, SiteBackward.smooth(25.0))
    assert bool(torch.all((found == 0) | (found.abs() > 1e-30)))
    assert not found[z < -0.5].any()
    exact = _derivative(z.double(), _KAPPA, None, SiteBackward.smooth(25.0))
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backward", _CHOICES, ids=str)
def test_all_derivatives_are_relus_at_kappa_zero(backward: SiteBackward) -> None:
    z = torch.tensor([-1.0, 0.0, 0.1, 2.0, 6.0, 7.0])
    assert torch.equal(_derivative(z, 0.0, None, backward), (z > 0).float())
    assert torch.equal(_derivative(z, 0.0, 6.0, backward), ((z > 0) & (z < 6)).float())


def test_exact_derivative_passes_gradcheck_away_from_the_jump() -> None:
    z = torch.tensor([-2.0, -0.1, 0.1, 0.2, 0.5, 3.0, 7.0], dtype=torch.float64, requires_grad=True)
    for cap in (None, 6.0):
        assert torch.autograd.gradcheck(lambda x, top=cap: jump(x, _KAPPA, top, SiteBackward.exact()), (z,))


def test_smooth_area_over_the_jump_is_its_height() -> None:
    # The point of the surrogate: integrated over z it climbs by what J climbs, jump included. Over [-a, a] with
    # a = 60 kappa the sigmoid is 0 and 1 at the ends to double precision, so the integral is a.
    kappa, ends = 1.0, 60.0
    z = torch.linspace(-ends, ends, 240_001, dtype=torch.float64)
    area = torch.trapezoid(_derivative(z, kappa, None, SiteBackward.smooth(5.0)), z).item()
    assert area == pytest.approx(ends, abs=1e-6)
    blind = torch.trapezoid(_derivative(z, kappa, None, SiteBackward.exact()), z).item()
    assert blind == pytest.approx(ends - kappa, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_keep_their_type(dtype: torch.dtype) -> None:
    z = torch.tensor([-1.0, 0.25, 0.5, 2.0], dtype=dtype)
    for backward in _CHOICES:
        assert torch.equal(jump(z, 0.25, None, backward), torch.tensor([0.0, 0.0, 0.5, 2.0], dtype=dtype))
        assert _derivative(z, 0.25, None, backward).dtype == dtype


def test_vmap_and_empty_input_work() -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    whole = jump(z, _KAPPA, None, SiteBackward.exact())
    assert torch.equal(torch.vmap(lambda row: jump(row, _KAPPA, None, SiteBackward.exact()))(z), whole)
    assert jump(torch.zeros(0, 3), _KAPPA, 6.0, SiteBackward.smooth(2.0)).shape == (0, 3)


_CHANNELS = (0.0, round_kappa(0.3, "float32"), 1.0)


@pytest.mark.parametrize("backward", _CHOICES, ids=str)
@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 2, 2)])
def test_every_channel_jumps_and_has_the_derivative_of_its_own_kappa(
    backward: SiteBackward, cap: float | None, shape: tuple[int, ...]
) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    flat = z.transpose(0, 1).reshape(3, -1)  # a view or a copy
    flat[:, 0], flat[:, 1] = torch.tensor(_CHANNELS), torch.tensor(0.0)  # at the jump, and at 0
    z = flat.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1)
    found, slope = jump(z, _CHANNELS, cap, backward), _derivative(z, _CHANNELS, cap, backward)
    for channel, kappa in enumerate(_CHANNELS):
        assert torch.equal(found[:, channel], jump(z[:, channel], kappa, cap, backward))
        # The same operations, but beta is a tensor in float32 here and a double there: rounded once more.
        torch.testing.assert_close(
            slope[:, channel], _derivative(z[:, channel], kappa, cap, backward), rtol=1e-5, atol=1e-6
        )


def test_special_values_are_those_of_the_definition_in_every_channel() -> None:
    values = np.array([math.nan, math.inf, -math.inf, -0.0, 1e-45, *_neighbours(_KAPPA)], dtype=np.float32)
    z = np.stack([values] * 3)[None]
    found = jump(torch.from_numpy(z.copy()), _CHANNELS, 6.0, SiteBackward.exact()).numpy()
    assert found.tobytes() == np.stack([jump_relu(values, kappa, 6.0) for kappa in _CHANNELS])[None].tobytes()


def test_a_kappa_that_was_first_used_without_derivatives_has_them_later() -> None:
    kappas = (0.25, 0.5, 0.125)
    with torch.inference_mode():
        jump(torch.ones(2, 3), kappas, None, SiteBackward.exact())
    assert _derivative(torch.ones(2, 3), kappas, None, SiteBackward.smooth(5.0)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((), "a tensor of rank 0 has no axis of channels"),
        ((3,), "a tensor of rank 1 has no axis of channels"),
        ((2, 4), "the tensor has 4 channels"),
        ((2, 1), "the tensor has 1 channels"),
    ],
)
def test_another_number_of_channels_is_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(KappaError, match=f"kappa has 3 values, one per channel, and {found}"):
        jump(torch.zeros(shape), _CHANNELS, None, SiteBackward.exact())


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_learned_kappa_that_has_come_to_0_has_a_finite_derivative(shape: tuple[int, ...]) -> None:
    kappa = torch.zeros(shape, requires_grad=True)
    z = torch.tensor([[-1.0, 0.0], [1e-30, 2.0]], requires_grad=True)
    jump(z, LearnedKappa(kappa, 0.5), None, SiteBackward.smooth(5.0)).sum().backward()
    assert torch.equal(z.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert kappa.grad.isfinite().all()


@pytest.mark.parametrize("backward", _CHOICES, ids=str)
def test_choice_survives_json(backward: SiteBackward) -> None:
    assert loads(SiteBackward, dumps(backward)) == backward


@pytest.mark.parametrize(
    ("mode", "beta_kappa", "said"),
    [
        ("soft", None, "expected exact"),
        ("exact", 2.0, "has none"),
        ("smooth", None, "expected a number > 0"),
        ("smooth", 0.0, "expected a number > 0"),
        ("smooth", math.inf, "expected a number > 0"),
    ],
)
def test_impossible_choice_is_refused(mode: str, beta_kappa: float | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SiteBackward(mode, beta_kappa)  # type: ignore[arg-type]
