"""The CPU pass agrees with the NumPy definition bit for bit: every dtype, dispatch level, length and corner."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jr_onnx.semantics import jump_relu, round_kappa
from tests.ops.samples import DTYPES, NAMES, corner_values, sample

ISAS = ("baseline", "avx2", "avx512")
LENGTHS = (*range(131), 4095, 4096, 4097)
KAPPAS = (0.0, 0.06, 1.0, 3.0)
GUARD = 64


def apply(
    probe: ctypes.CDLL, name: str, isa: int, z: npt.NDArray[Any], kappa: float, cap: float | None = None
) -> npt.NDArray[Any]:
    """Run the pass into a fresh buffer between two guards that must stay as they are."""
    room = np.full(z.size + 2 * GUARD, 0x5A, dtype=np.uint8).repeat(z.itemsize).view(z.dtype)
    out = room[GUARD : GUARD + z.size]
    _call(probe, name, isa, z, out, kappa, cap)
    guards = np.concatenate([room[:GUARD], room[GUARD + z.size :]])
    assert set(guards.tobytes()) == {0x5A}
    return out


def _call(
    probe: ctypes.CDLL,
    name: str,
    isa: int,
    z: npt.NDArray[Any],
    out: npt.NDArray[Any],
    kappa: float,
    cap: float | None,
) -> None:
    if not probe.jr_onnx_test_supports(isa):
        pytest.skip(f"this CPU has no {ISAS[isa]}")
    probe.jr_onnx_test_apply(
        NAMES.index(name), isa, z.ctypes.data, out.ctypes.data, z.size, kappa, cap or 0.0, cap is not None
    )


@pytest.mark.parametrize("isa", range(3), ids=ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_length(probe: ctypes.CDLL, name: str, isa: int) -> None:
    kappa = round_kappa(0.06, name)
    for length in LENGTHS:
        z = sample(name, length, kappa, seed=length)
        for cap in (None, 1.5):
            assert apply(probe, name, isa, z, kappa, cap).tobytes() == jump_relu(z, kappa, cap).tobytes(), length


@pytest.mark.parametrize("isa", range(3), ids=ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_unaligned_slices_in_place(probe: ctypes.CDLL, name: str, isa: int) -> None:
    kappa = round_kappa(0.06, name)
    for start in range(17):
        for length in (1, 63, 64, 65, 200):
            room = sample(name, start + length + 5, kappa, seed=start)
            expected = room.copy()
            expected[start : start + length] = jump_relu(room[start : start + length], kappa)
            part = room[start : start + length]
            _call(probe, name, isa, part, part, kappa, None)
            assert room.tobytes() == expected.tobytes(), (start, length)


@pytest.mark.parametrize("isa", range(3), ids=ISAS)
@pytest.mark.parametrize("cap", [None, 0.0, 1.0, 6.0, np.inf], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_corners(probe: ctypes.CDLL, name: str, cap: float | None, isa: int) -> None:
    for wanted in (*KAPPAS, 1e-40, 6e-8, 2.0**-25, 60000.0):
        kappa = round_kappa(wanted, name)
        z = np.tile(corner_values(name, kappa), 9)
        assert apply(probe, name, isa, z, kappa, cap).tobytes() == jump_relu(z, kappa, cap).tobytes(), wanted


@pytest.mark.parametrize("isa", range(3), ids=ISAS)
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_value_of_a_half_type(probe: ctypes.CDLL, name: str, isa: int) -> None:
    _, dtype, _ = next(item for item in DTYPES if item[0] == name)
    z = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    for wanted in (*KAPPAS, 60000.0):
        kappa = round_kappa(wanted, name)
        for cap in (None, 6.0):
            assert apply(probe, name, isa, z, kappa, cap).tobytes() == jump_relu(z, kappa, cap).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_dispatch_levels_agree(probe: ctypes.CDLL, name: str) -> None:
    levels = [isa for isa in range(3) if probe.jr_onnx_test_supports(isa)]
    bits = next(item[2] for item in DTYPES if item[0] == name)
    words = np.random.default_rng(3).integers(0, 256, 100_000 * bits.itemsize, dtype=np.uint8)
    z = words.view(next(item[1] for item in DTYPES if item[0] == name))
    results = {apply(probe, name, isa, z, round_kappa(0.06, name), 2.0).tobytes() for isa in levels}
    assert len(results) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_denormal_mode_changes_nothing(probe: ctypes.CDLL, name: str) -> None:
    z = corner_values(name, 0.0)
    expected = jump_relu(z, 0.0).tobytes()
    if not probe.jr_onnx_test_flush_denormals(1):
        pytest.skip("the denormal mode can only be set on x86-64 here")
    try:
        results = [apply(probe, name, isa, z, 0.0) for isa in range(3) if probe.jr_onnx_test_supports(isa)]
    finally:
        probe.jr_onnx_test_flush_denormals(0)
    assert [result.tobytes() for result in results] == [expected] * len(results)


@pytest.mark.parametrize("wanted", ["baseline", "avx2", "avx512", "nonsense"])
def test_a_dispatch_level_can_be_forced(probe: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.delenv("JR_ONNX_ISA", raising=False)
    best = probe.jr_onnx_test_chosen_isa()
    monkeypatch.setenv("JR_ONNX_ISA", wanted)
    expected = ISAS.index(wanted) if wanted in ISAS and probe.jr_onnx_test_supports(ISAS.index(wanted)) else best
    assert probe.jr_onnx_test_chosen_isa() == expected


@pytest.mark.parametrize("name", NAMES)
def test_kappa_is_rounded_as_numpy_rounds(probe: ctypes.CDLL, name: str) -> None:
    _, dtype, bits = next(item for item in DTYPES if item[0] == name)
    if bits.itemsize == 2:  # every value of the type, the middle between neighbours, and the floats beside it
        exact = np.arange(int(np.array(np.inf, dtype=dtype).view(bits)), dtype=bits).view(dtype).astype(np.float32)
        middle = exact[:-1] / 2 + exact[1:] / 2
        single = np.concatenate([exact, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.inf)])
    else:
        single = np.random.default_rng(1).integers(0, 0x7F800000, 20_000, dtype=np.uint32).view(np.float32)
    single = np.concatenate([single, np.array([0, 1e-45, 65519.99, 65520, 3.39e38, 3.4028235e38], np.float32)])
    with np.errstate(over="ignore", under="ignore"):
        expected = single.astype(dtype).view(bits)
    index = NAMES.index(name)
    found = np.array([probe.jr_onnx_test_round(index, float(value)) for value in single]).astype(bits)
    assert found.tobytes() == expected.tobytes()
