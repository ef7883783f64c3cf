"""The CUDA kernels, run thread by thread on the CPU: every element, every buffer, every source of kappa."""

from __future__ import annotations

import ctypes
import subprocess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jr_onnx.semantics import jump_relu, round_kappa
from tests.ops.conftest import EMULATED_FLAGS, EMULATED_SOURCES, can_sanitize
from tests.ops.samples import DTYPES, NAMES, corner_values, sample

GUARD = 32
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 1023, 1024, 1025, 4095, 4097)


def apply(
    kernels: ctypes.CDLL,
    name: str,
    z: npt.NDArray[Any],
    kappa: float,
    cap: float | None = None,
    *,
    in_memory: bool = False,
    offsets: tuple[int, int] = (0, 0),
    in_place: bool = False,
) -> npt.NDArray[Any]:
    """Run the pass on buffers that start so many elements behind a multiple of 16 bytes, between guards."""
    source, start = _room(z, offsets[0])
    result, target = (source, start) if in_place else _room(np.zeros_like(z), offsets[1])
    error = kernels.jr_onnx_test_pass(
        NAMES.index(name), in_memory, cap is not None, ctypes.c_float(kappa), cap or 0.0,
        source.ctypes.data + start, result.ctypes.data + target, z.size,
    )  # fmt: skip
    assert error is None
    for room, begin in ((source, start), (result, target)):
        assert set(room[:begin].tobytes() + room[begin + z.nbytes :].tobytes()) <= {0x5A}
    if not in_place:
        assert source[start : start + z.nbytes].tobytes() == z.tobytes()
    return result[target : target + z.nbytes].copy().view(z.dtype)


def _room(z: npt.NDArray[Any], offset: int) -> tuple[npt.NDArray[np.uint8], int]:
    room = np.full(z.nbytes + 2 * GUARD + 16, 0x5A, np.uint8)
    start = GUARD + -(room.ctypes.data + GUARD) % 16 + offset * z.itemsize
    room[start : start + z.nbytes] = np.frombuffer(z.tobytes(), np.uint8)
    return room, start


@pytest.mark.parametrize("in_memory", [False, True], ids=["constant", "in memory"])
@pytest.mark.parametrize("name", NAMES)
def test_every_length(kernels: ctypes.CDLL, order: None, name: str, in_memory: bool) -> None:
    for count in LENGTHS:
        z = sample(name, count, 0.06, seed=count)
        for cap in (None, 0.5):
            expected = jump_relu(z, round_kappa(0.06, name), cap)
            assert apply(kernels, name, z, 0.06, cap, in_memory=in_memory).tobytes() == expected.tobytes(), count


@pytest.mark.parametrize("in_place", [False, True], ids=["apart", "in place"])
@pytest.mark.parametrize("name", NAMES)
def test_unaligned_buffers(kernels: ctypes.CDLL, order: None, name: str, in_place: bool) -> None:
    for offsets in ((1, 0), (0, 1), (1, 1)):
        for count in (1, 17, 4097):
            z = sample(name, count, 0.25, seed=count)
            found = apply(kernels, name, z, 0.25, 2.0, offsets=offsets, in_place=in_place)
            assert found.tobytes() == jump_relu(z, round_kappa(0.25, name), 2.0).tobytes(), (offsets, count)


@pytest.mark.parametrize("cap", [None, 0.0, 6.0, np.inf], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_corners(kernels: ctypes.CDLL, name: str, cap: float | None) -> None:
    for kappa in (0.0, 1e-30, 0.06, 1.0, 3.0):
        z = corner_values(name, round_kappa(kappa, name))
        for in_memory in (False, True):
            found = apply(kernels, name, z, kappa, cap, in_memory=in_memory)
            assert found.tobytes() == jump_relu(z, round_kappa(kappa, name), cap).tobytes(), (kappa, in_memory)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_value_of_a_half_type(kernels: ctypes.CDLL, name: str) -> None:
    z = np.arange(1 << 16, dtype=np.uint16).view({key: dtype for key, dtype, _ in DTYPES}[name])
    for kappa in (0.0, 0.06, 1.0):
        for in_memory in (False, True):
            found = apply(kernels, name, z, kappa, in_memory=in_memory)
            assert found.tobytes() == jump_relu(z, round_kappa(kappa, name)).tobytes(), (kappa, in_memory)


@pytest.mark.parametrize("kappa", [-1.0, -1e-45, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_kappa_in_memory_that_is_none_makes_every_result_nan(kernels: ctypes.CDLL, name: str, kappa: float) -> None:
    z = sample(name, 4097, 0.06)
    assert np.isnan(apply(kernels, name, z, kappa, in_memory=True).astype(np.float64)).all()


def test_a_kappa_in_memory_that_overflows_the_type_makes_every_result_nan(kernels: ctypes.CDLL) -> None:
    z = sample("float16", 100, 0.06)
    assert np.isnan(apply(kernels, "float16", z, 65_520.0, in_memory=True).astype(np.float64)).all()
    assert not np.isnan(apply(kernels, "float16", z, 65_519.0, in_memory=True).astype(np.float64)).any()
    assert apply(kernels, "float32", np.ones(3, np.float32), -0.0, in_memory=True).tolist() == [1, 1, 1]


def test_small_tensors_are_spread_over_many_blocks(kernels: ctypes.CDLL) -> None:
    """A feature map of 64 x 56 x 56 floats at batch 1 gives every processor of a large GPU a block."""
    apply(kernels, "float32", np.ones(64 * 56 * 56, np.float32), 0.5)
    assert kernels.jr_onnx_test_last_blocks() == 196
    apply(kernels, "float32", np.ones(4 * 512 * 1024, np.float32), 0.5)
    assert kernels.jr_onnx_test_last_blocks() == 512, "four vectors a thread"


def draws(kernels: ctypes.CDLL, low: float, high: float, count: int) -> npt.NDArray[np.float32]:
    out = np.full(count, np.nan, np.float32)
    assert kernels.jr_onnx_test_draw(low, high, out.ctypes.data, count) is None
    return out


def test_draws_differ_and_fill_their_range(kernels: ctypes.CDLL) -> None:
    found = draws(kernels, 0.25, 0.75, 4000)
    assert ((found >= 0.25) & (found < 0.75)).all()
    assert len(set(found.tolist())) > 3990
    share = np.histogram(found, 10, (0.25, 0.75))[0] / found.size
    assert abs(share - 0.1).max() < 6 * np.sqrt(0.1 * 0.9 / found.size), "six standard deviations of a share"
    assert not np.isin(draws(kernels, 0.25, 0.75, 100), found).all(), "another node has another key"


def test_the_end_of_a_range_is_never_drawn(kernels: ctypes.CDLL) -> None:
    high = np.nextafter(np.float32(0.5), np.float32(1))
    assert set(draws(kernels, 0.5, float(high), 200).tolist()) == {0.5}


def test_chacha20_block_function(kernels: ctypes.CDLL) -> None:
    """RFC 8439, section 2.3.2."""
    key = np.arange(32, dtype=np.uint8).view(np.uint32).copy()
    position = np.array([1, 0x09000000, 0x4A000000, 0], np.uint32)
    out = np.zeros(16, np.uint32)
    kernels.jr_onnx_test_chacha(*(ctypes.c_void_p(item.ctypes.data) for item in (key, position, out)))
    assert out[[0, 1, 14, 15]].tolist() == [0xE4E7F110, 0x15593BD1, 0xE883D0CB, 0x4E3C50A2]


@pytest.mark.parametrize("sanitizer", ["address,undefined"])
def test_clean_under_sanitizers(cxx: list[str], compile_cxx: Any, tmp_path: Any, sanitizer: str) -> None:
    flag = f"-fsanitize={sanitizer}"
    if not can_sanitize(cxx, tmp_path, flag):
        pytest.skip(f"the compiler has no working {flag} here")
    sources = ("emulated_cuda/sanitize_driver.cc", *EMULATED_SOURCES)
    driver = compile_cxx("driver", sources, flag, "-fno-sanitize-recover=all", "-O1", *EMULATED_FLAGS)
    done = subprocess.run([driver], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "clean\n", "")
