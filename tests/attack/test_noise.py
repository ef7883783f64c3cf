from __future__ import annotations

import numpy as np
import pytest

from jr_onnx.attack.noise import _GAMMA, Noise, _mix


def test_the_generator_is_splitmix64() -> None:
    # The first two outputs of the reference implementation from state 0.
    with np.errstate(over="ignore"):
        words = _mix(np.array([_GAMMA, _GAMMA * np.uint64(2)]))
    assert [int(word) for word in words] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_a_sample_draws_the_same_in_any_company() -> None:
    noise = Noise(7)
    together = noise.normal("start", np.arange(50), 33, step=3)
    for index in (0, 17, 49):
        assert np.array_equal(noise.normal("start", np.array([index]), 33, step=3)[0], together[index])


@pytest.mark.parametrize("change", ["seed", "stream", "index", "step"])
def test_every_part_of_the_key_counts(change: str) -> None:
    base = Noise(1).uniform("a", np.array([4]), 8, step=2)
    other = Noise(2 if change == "seed" else 1).uniform(
        "b" if change == "stream" else "a",
        np.array([5 if change == "index" else 4]),
        8,
        step=3 if change == "step" else 2,
    )
    assert not np.any(base == other)


def test_moments_are_those_of_the_distributions() -> None:
    # 10^6 draws: the standard error of the mean of U[0, 1) is 2.9e-4, of N(0, 1) 1e-3; five of each.
    uniform = Noise(0).uniform("u", np.arange(1000), 1000)
    normal = Noise(0).normal("n", np.arange(1000), 1000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 1.5e-3
    assert abs(normal.mean()) < 5e-3
    assert abs(normal.var() - 1) < 7.1e-3  # the standard error of the variance is sqrt(2) 1e-3
    # Neighbouring samples and positions are uncorrelated (standard error 1e-3).
    assert abs(np.mean(normal[:-1] * normal[1:])) < 5.1e-3
    assert abs(np.mean(normal[:, :-1] * normal[:, 1:])) < 5.1e-3


def test_negative_seeds_and_large_indices_are_keys_too() -> None:
    draws = Noise(-1).uniform("x", np.array([2**62, 2**62 + 1]), 4)
    assert not np.any(draws[0] == draws[1])
