"""The bounds of a comparison come from finite values: one infinity must not let everything pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from jr_onnx.torchnet.comparison import Pair
from jr_onnx.torchnet.probing import _same


@dataclass
class Side:
    """Logits x, x plus an error, and one odd number that may come and go with kappa."""

    error: float = 0.0
    odd: float = 0.0
    from_kappa: float = 0.0
    site_error: float = 0.0
    eps: float = 1e-7
    kappas: dict[str, float] = field(default_factory=dict)

    def set_kappas(self, kappas: Mapping[str, float]) -> None:
        self.kappas = dict(kappas)

    def logits(self, part: Tensor) -> np.ndarray:
        result = part.double().numpy() + self.error
        if self.kappas.get("r", 0.0) >= self.from_kappa:
            result[:, 2] = self.odd
        return result

    def site_inputs(self, part: Tensor) -> dict[str, list[Tensor]]:
        inputs = part.double() + self.site_error
        inputs[0, 0] = self.odd if self.site_error else 1.0
        return {"r": [inputs]}


def runtime(side: Side) -> Callable[[np.ndarray], np.ndarray]:
    """The other side of a comparison, which takes arrays."""
    return lambda images: side.logits(torch.from_numpy(images))


X = torch.rand((8, 3), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_widens_no_bound(odd: float) -> None:
    pair = Pair(Side(odd=odd), Side(odd=odd, error=1e-6), Side(odd=odd), batch=4)
    right = pair.compare("kappa 0", runtime(Side(odd=odd)), X, None)
    assert right.passed
    assert right.bound < 1e-4
    wrong = pair.compare("kappa 0", runtime(Side(odd=odd, error=0.5)), X, None)
    assert not wrong.passed
    assert not pair.compare("kappa 0", runtime(Side(odd=1.0)), X, None).passed


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_an_overflow_at_a_site_is_no_measure_of_rounding(odd: float) -> None:
    pair = Pair(Side(), Side(site_error=1e-6, odd=odd), Side(), batch=4)
    assert 0 < pair.rounding_at_sites(X)["r"] < 1e-5


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_an_infinity_that_comes_with_the_jump_excuses_nothing(odd: float) -> None:
    sides = [Side(odd=odd, from_kappa=1.0 + 1e-9) for _ in range(3)]
    pair = Pair(*sides, batch=4)
    pair.set_kappas({"r": 1.0})
    assert not pair.compare("kappa", runtime(Side(error=0.5, from_kappa=9.0)), X, {"r": 1e-6}).passed


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_probing_sees_samples_that_differ_beside_an_infinity(odd: float) -> None:
    expected = torch.tensor([[1.0, 2.0, odd]])
    assert _same(expected.clone(), expected)
    assert not _same(torch.tensor([[1.0, 2.5, odd]]), expected)
    assert not _same(torch.tensor([[1.0, 2.0, 3.0]]), expected)
