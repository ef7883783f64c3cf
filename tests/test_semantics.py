"""The NumPy definition of JumpReLU and the rounding of kappa, against ml_dtypes and against themselves."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jr_onnx.errors import KappaError
from jr_onnx.semantics import (
    FLOAT_DTYPES,
    jump_relu,
    kappa_label,
    largest,
    padded_to_blocks,
    round_kappa,
    round_to,
    validate_kappa,
)

NUMPY = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}
KAPPAS = (0.0, 1e-9, 6e-8, 1e-5, 0.06, 0.1, 1.0, 3.14159, 100.0, 65504.0)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_the_jump_is_strict_and_the_neighbours_of_kappa_fall_on_their_sides(dtype: str) -> None:
    for wanted in KAPPAS:
        kappa = np.asarray(round_kappa(wanted, dtype), dtype=NUMPY[dtype])
        bits = kappa.view(BITS[dtype])
        above = (bits + BITS[dtype](1)).view(NUMPY[dtype])
        below = (bits - BITS[dtype](1)).view(NUMPY[dtype]) if kappa > 0 else np.asarray(-0.0, dtype=NUMPY[dtype])
        z = np.stack([below, kappa, above])
        expected = np.stack([np.zeros((), z.dtype), np.zeros((), z.dtype), above])
        assert same_bits(jump_relu(z, float(kappa)), expected), wanted


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_nan_and_negative_values_become_plus_zero(dtype: str) -> None:
    z = np.array([np.nan, -np.inf, -1.0, -0.0, 0.0], dtype=NUMPY[dtype])
    for kappa in (0.0, 1.0):
        assert same_bits(jump_relu(z, kappa), np.zeros(5, dtype=NUMPY[dtype]))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_plus_infinity_passes_or_meets_the_cap(dtype: str) -> None:
    z = np.array([np.inf, 5.0, 7.0], dtype=NUMPY[dtype])
    assert jump_relu(z, 0.5).tolist() == [np.inf, 5.0, 7.0]
    assert jump_relu(z, 0.5, cap=6.0).tolist() == [6.0, 5.0, 6.0]
    assert jump_relu(z, 6.5, cap=6.0).tolist() == [6.0, 0.0, 6.0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kappa_zero_is_relu_for_every_value_of_a_16_bit_type(dtype: str) -> None:
    z = np.arange(2**16, dtype=np.uint16).view(NUMPY[dtype])
    z = z[~np.isnan(z.astype(np.float32))]
    relu = np.maximum(z.astype(np.float32), np.float32(0)) + np.float32(0)  # + 0 makes -0.0 the +0.0 of the definition
    assert same_bits(jump_relu(z, 0.0), relu.astype(z.dtype))


def test_shape_is_kept_and_the_operand_is_not_changed() -> None:
    for shape in ((), (0,), (2, 3), (2, 0, 3)):
        z = np.full(shape, 0.5, dtype=np.float32)
        result = jump_relu(z, 1.0)
        assert result.shape == shape
        assert np.all(result == 0)
        assert np.all(z == 0.5)


@given(st.floats(min_value=0, max_value=3.3e38, allow_subnormal=True))
def test_bfloat16_rounding_is_that_of_ml_dtypes(kappa: float) -> None:
    expected = float(np.float32(kappa).astype(ml_dtypes.bfloat16))
    assert round_kappa(kappa, "bfloat16") == expected


@given(st.floats(min_value=0, max_value=65519.0))
def test_float16_rounding_goes_through_float32_as_an_onnx_attribute_does(kappa: float) -> None:
    with np.errstate(under="ignore"):
        expected = float(np.float16(np.float32(kappa)))
    assert round_kappa(kappa, "float16") == expected


@given(st.floats(min_value=0, max_value=3.4e38))
def test_double_sites_use_the_float32_value(kappa: float) -> None:
    with np.errstate(under="ignore"):
        assert round_kappa(kappa, "float64") == round_kappa(kappa, "float32") == float(np.float32(kappa))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@given(data=st.data())
def test_rounding_twice_is_rounding_once(dtype: str, data: st.DataObject) -> None:
    kappa = data.draw(st.floats(min_value=0, max_value=60000.0))
    once = round_kappa(kappa, dtype)
    assert round_kappa(once, dtype) == once


@pytest.mark.parametrize(
    ("dtype", "largest", "first_too_large"),
    [
        ("float16", 65519.99, 65520.0),
        ("bfloat16", 3.3895e38, 3.4e38),
        ("float32", 3.4028234e38, 3.4028236e38),
        ("float64", 3.4028234e38, 3.5e38),
    ],
)
def test_a_kappa_that_overflows_is_refused_and_the_largest_is_not(
    dtype: str, largest: float, first_too_large: float
) -> None:
    assert math.isfinite(round_kappa(largest, dtype))
    with pytest.raises(KappaError, match=f"overflows {dtype}, whose largest value is"):
        round_kappa(first_too_large, dtype)


@pytest.mark.parametrize("kappa", [-1e-9, -1, math.nan, math.inf, -math.inf])
def test_what_is_no_kappa_is_refused_by_value(kappa: float) -> None:
    with pytest.raises(KappaError, match=f"kappa is {float(kappa)}, expected a finite number >= 0"):
        validate_kappa(kappa)


@pytest.mark.parametrize("kappa", ["high", None, [], object(), 10**400])
def test_what_is_no_number_is_refused(kappa: object) -> None:
    with pytest.raises(KappaError, match="expected a"):
        validate_kappa(kappa)  # type: ignore[arg-type]


def test_minus_zero_is_the_kappa_zero() -> None:
    assert math.copysign(1.0, validate_kappa(-0.0)) == 1.0
    assert math.copysign(1.0, round_kappa(-0.0, "float16")) == 1.0


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KappaError, match="cannot be rounded to 'int8', expected one of float16, bfloat16"):
        round_kappa(0.1, "int8")


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_a_cap_keeps_the_type_of_the_operand(dtype: str) -> None:
    z = np.array([-1.0, 0.25, 0.5, 5.0, 7.0], dtype=NUMPY[dtype])
    assert same_bits(jump_relu(z, 0.25, cap=6.0), np.array([0.0, 0.0, 0.5, 5.0, 6.0], dtype=NUMPY[dtype]))


def test_bfloat16_ties_go_to_the_even_neighbour() -> None:
    """A random float32 is next to never half-way between two bfloat16, so the ties are built from their bits."""
    upper = np.concatenate([np.arange(0x80), np.arange(0x0080, 0x7F80, 97), np.arange(0x7F00, 0x7F80)])
    for sign in (0, 0x8000):
        for lower in (0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
            singles = (((upper | sign) << 16) | lower).astype(np.uint32).view(np.float32)
            expected = singles.astype(ml_dtypes.bfloat16).astype(np.float64)
            found = np.array([round_to(float(single), "bfloat16") for single in singles])
            assert same_bits(found, expected), (sign, lower)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_rounding_leaves_infinities_and_nan_and_overflows_to_infinity(dtype: str) -> None:
    assert round_to(math.inf, dtype) == math.inf
    assert round_to(-math.inf, dtype) == -math.inf
    assert math.isnan(round_to(math.nan, dtype))
    assert round_to(largest(dtype), dtype) == largest(dtype)
    assert round_to(-3.5e38, dtype) == (-3.5e38 if dtype == "float64" else -math.inf)


def test_the_largest_numbers_are_those_of_the_types() -> None:
    assert [largest(dtype) for dtype in FLOAT_DTYPES] == [
        float(ml_dtypes.finfo(NUMPY[name]).max) for name in FLOAT_DTYPES
    ]


@pytest.mark.parametrize("kappa", [True, False, np.True_])
def test_a_truth_value_is_no_kappa(kappa: object) -> None:
    with pytest.raises(KappaError, match=f"the jump is .*{kappa}.*, expected a number"):
        validate_kappa(kappa, "the jump")  # type: ignore[arg-type]


@pytest.mark.parametrize("kappa", ["high", None, 10**400, -1.0, math.nan])
def test_a_refusal_says_which_kappa(kappa: object) -> None:
    with pytest.raises(KappaError, match=r"^kappa of conv1 is "):
        validate_kappa(kappa, "kappa of conv1")  # type: ignore[arg-type]


def test_rounding_does_not_depend_on_how_the_caller_treats_underflow() -> None:
    with np.errstate(all="raise"):
        assert round_kappa(1e-50, "float32") == round_kappa(1e-9, "float16") == 0.0
        assert round_to(1e6, "float16") == math.inf
        assert jump_relu(np.array([np.nan, 1.0], dtype=np.float32), 0.5).tolist() == [0.0, 1.0]


def test_a_kappa_of_no_channels_which_a_damaged_file_may_hold_has_a_label() -> None:
    assert kappa_label(()) == "per channel: none (0 channels)"
    assert kappa_label((0.25, 0.5)) == "per channel: 0.25 to 0.5 (2 channels)"


@pytest.mark.parametrize(("size", "zeros"), [(1, 0), (2, 1), (3, 0), (4, 1), (16, 13)])
def test_the_last_block_of_channels_is_filled_with_kappa_zero(size: int, zeros: int) -> None:
    assert padded_to_blocks((0.5, 1.0, 2.0), size) == (0.5, 1.0, 2.0, *zeros * (0.0,))
