from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jr_onnx import semantics
from jr_onnx.errors import KappaError
from models import JumpReLU, jump_relu

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1.0, -1.0]


@given(st.floats(0, 4, width=32), st.lists(st.floats(width=32), max_size=20))
def test_it_is_the_definition_bit_for_bit(kappa: float, values: list[float]) -> None:
    near = [kappa, np.nextafter(np.float32(kappa), np.float32(9)), np.nextafter(np.float32(kappa), np.float32(-9))]
    z = np.array([*values, *near, *SPECIAL], dtype=np.float32)
    found = JumpReLU(kappa)(torch.from_numpy(z)).numpy()
    assert np.array_equal(found.view(np.uint32), semantics.jump_relu(z, kappa).view(np.uint32))


def test_its_gradient_is_the_mask() -> None:
    z = torch.tensor([-1.0, 0.5, 1.0, 1.5], requires_grad=True)
    JumpReLU(1.0)(z).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("kappa", [-0.1, math.nan, math.inf])
def test_a_bad_kappa_is_refused_at_once(kappa: float) -> None:
    with pytest.raises(KappaError, match="expected a finite number >= 0"):
        jump_relu(kappa)


def test_kappa_is_shown() -> None:
    assert repr(JumpReLU(0.5)) == "JumpReLU(kappa=0.5)"
