"""A kappa for each channel: the bits of NumPy's J, on CPU sessions and thread by thread on CUDA."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from jr_onnx.element_types import NUMBERS
from jr_onnx.semantics import round_kappa
from tests.ops.conftest import MakeSession
from tests.ops.samples import NAMES, corner_values, sample

FLOAT = TensorProto.FLOAT
# Runs of a channel from 1 element to many, rows that are short and long, and more than one piece of work.
SHAPES = ((5, 3), (1, 700), (3, 1025), (2, 3, 1), (4, 16, 7), (2, 3, 5, 7), (1, 65, 14, 14), (2, 3, 2, 4, 4), (0, 3, 4))


def kappas_for(channels: int, seed: int = 0) -> NDArray[np.float32]:
    """Return kappas among them 0, -0, a subnormal one and 1."""
    kappas = np.abs(np.random.default_rng(seed).standard_normal(channels)).astype(np.float32)
    special = np.array([0.0, 1e-45, -0.0, 1.0], np.float32)[:channels]
    kappas[: special.size] = special
    return kappas


def values_for(name: str, shape: tuple[int, ...], kappas: NDArray[np.float32], axis: int) -> NDArray[Any]:
    """Return random values, of which each channel holds its own kappa's neighbours and the other corners."""
    z = sample(name, math.prod(shape), 0.5, seed=len(shape)).reshape(shape)
    for channel, kappa in enumerate(kappas):
        place = tuple(channel if i == axis % z.ndim else slice(None) for i in range(z.ndim))
        corners = corner_values(name, round_kappa(float(kappa), name))
        part = z[place].copy()
        flat = np.atleast_1d(part).reshape(-1)
        flat[:] = np.where(np.arange(flat.size) % 2, flat, np.resize(np.roll(corners, channel), flat.size))
        z[place] = flat.reshape(part.shape)
    return z


def expected(name: str, z: NDArray[Any], kappas: NDArray[np.float32], axis: int, cap: float | None) -> bytes:
    """Return J by its definition, channel by channel."""
    shape = [-1 if i == axis % z.ndim else 1 for i in range(z.ndim)]
    rounded = np.array([round_kappa(float(kappa), name) for kappa in kappas]).astype(z.dtype).reshape(shape)
    with np.errstate(invalid="ignore"):
        result = np.where(z > rounded, z, np.zeros((), z.dtype))
    if cap is not None:
        result = np.minimum(result, np.asarray(cap, z.dtype))
    return result.astype(z.dtype).tobytes()


def broadcast(kappas: NDArray[np.float32], rank: int, axis: int) -> NDArray[np.float32]:
    return kappas.reshape(-1, *(1 for _ in range(rank - 1 - axis % rank)))


def open_session(make_session: MakeSession, name: str, rank: int, kappa_rank: int, **attributes: float) -> Any:
    """Open a session of one node, at first with types that NumPy has: bfloat16 goes through casts."""
    kind = NUMBERS["float32" if name == "bfloat16" else name]
    inputs = [
        helper.make_tensor_value_info("z", kind, [f"d{i}" for i in range(rank)]),
        helper.make_tensor_value_info("kappa", FLOAT, [f"k{i}" for i in range(kappa_rank)]),
    ]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    names = ("narrow", "jumped") if name == "bfloat16" else ("z", "y")
    nodes = [helper.make_node("JumpRelu", [names[0], "kappa"], names[1:], name="site", domain="jr_onnx", **attributes)]
    if name == "bfloat16":
        nodes.insert(0, helper.make_node("Cast", ["z"], ["narrow"], to=TensorProto.BFLOAT16))
        nodes.append(helper.make_node("Cast", ["jumped"], ["y"], to=FLOAT))
    return make_session(nodes, inputs, outputs)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("axis", [1, -1], ids=["axis 1", "last axis"])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_cpu(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, name: str, axis: int, isa: str) -> None:
    monkeypatch.setenv("JR_ONNX_ISA", isa)
    for shape in SHAPES:
        kappas = kappas_for(shape[axis])
        given = broadcast(kappas, len(shape), axis)
        z = values_for(name, shape, kappas, axis)
        for parallel, attributes in (("1", {}), ("1000000000", {"cap": 0.5})):
            monkeypatch.setenv("JR_ONNX_PARALLEL_BYTES", parallel)
            session = open_session(make_session, name, len(shape), given.ndim, **attributes)
            (found,) = session.run(None, {"z": z, "kappa": given})
            assert found.shape == shape
            assert found.tobytes() == expected(name, z, kappas, axis, attributes.get("cap")), (shape, attributes)


def test_cpu_bfloat16(make_session: MakeSession) -> None:
    kappas = kappas_for(5)
    z = values_for("bfloat16", (3, 5, 40), kappas, 1)
    session = open_session(make_session, "bfloat16", 3, 2)
    (found,) = session.run(None, {"z": z.astype(np.float32), "kappa": kappas[:, None]})
    assert found.astype(z.dtype).tobytes() == expected("bfloat16", z, kappas, 1, None)


def test_a_large_tensor_in_pieces(make_session: MakeSession) -> None:
    for shape in ((2, 40, 64, 64), (300, 2000), (2, 3, 300, 301)):
        kappas = kappas_for(shape[1])
        z = sample("float32", math.prod(shape), 0.5).reshape(shape)
        given = broadcast(kappas, len(shape), 1)
        (found,) = open_session(make_session, "float32", len(shape), given.ndim).run(None, {"z": z, "kappa": given})
        assert found.tobytes() == expected("float32", z, kappas, 1, None)


def test_subnormal_kappas(make_session: MakeSession) -> None:
    kappas = np.array([0.0, 1e-45, 1e-40], np.float32)
    z = np.array([[1e-45, 1e-45, 1e-40], [1e-40, 2e-45, 2e-40]], np.float32)
    (found,) = open_session(make_session, "float32", 2, 1).run(None, {"z": z, "kappa": kappas})
    assert found.tobytes() == expected("float32", z, kappas, 1, None)


@pytest.mark.parametrize(
    ("shape", "kappa", "message"),
    [
        (
            (2, 3, 4),
            np.zeros((2, 1)),
            r"has the shape \(2, 1\), expected one float, or one for each channel .* \(2, 3, 4\)",
        ),
        ((2, 3, 4), np.zeros((3, 4)), r"has the shape \(3, 4\)"),
        ((3,), np.zeros((1, 3)), r"has the shape \(1, 3\)"),
        ((2, 3, 4), np.zeros((3, 1, 1, 1)), r"has the shape \(3, 1, 1, 1\)"),
        ((2, 3), np.array([0.1, -0.5, 0.1]), "the kappa input of channel 1 is -0.5, expected a finite number >= 0"),
        ((2, 3), np.array([0.1, 0.1, np.nan]), "the kappa input of channel 2 is nan"),
        ((2, 3), np.array([np.inf, 0.1, 0.1]), "the kappa input of channel 0 is inf"),
        ((2, 3), np.array([0.1, -1e-45, 0.1]), "the kappa input of channel 1 is -1.4"),
    ],
)
def test_what_is_refused(make_session: MakeSession, shape: tuple[int, ...], kappa: NDArray[Any], message: str) -> None:
    session = open_session(make_session, "float32", len(shape), kappa.ndim)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=message) as caught:
        session.run(None, {"z": np.zeros(shape, np.float32), "kappa": kappa.astype(np.float32)})
    assert "JumpRelu node 'site'" in str(caught.value)


def test_a_kappa_that_overflows_the_type_is_refused(make_session: MakeSession) -> None:
    session = open_session(make_session, "float16", 2, 1)
    with pytest.raises(Exception, match="the kappa input of channel 1 overflows float16"):
        session.run(None, {"z": np.zeros((1, 2), np.float16), "kappa": np.array([0.1, 7e4], np.float32)})


@pytest.mark.parametrize("axis", [1, -1], ids=["axis 1", "last axis"])
@pytest.mark.parametrize("name", NAMES)
def test_cuda(kernels: ctypes.CDLL, order: None, name: str, axis: int) -> None:
    for shape in SHAPES:
        kappas = kappas_for(shape[axis])
        z = values_for(name, shape, kappas, axis)
        for offset, cap in ((0, None), (1, 0.5)):
            room = np.zeros(z.nbytes + 64, np.uint8)
            start = -room.ctypes.data % 16 + offset * z.itemsize
            held = room[start : start + z.nbytes]
            held[:] = np.frombuffer(z.tobytes(), np.uint8)
            error = kernels.jr_onnx_test_channel_pass(
                NAMES.index(name), kappas.ctypes.data, cap if cap is not None else math.inf, held.ctypes.data, None,
                held.ctypes.data, z.size, math.prod(shape[axis:][1:]), shape[axis],
            )  # fmt: skip
            assert error is None
            assert held.tobytes() == expected(name, z, kappas, axis, cap), (shape, offset)


@pytest.mark.parametrize("bad", [-1.0, -1e-45, np.nan, np.inf], ids=str)
def test_an_invalid_kappa_on_cuda_makes_its_channel_nan(kernels: ctypes.CDLL, bad: float) -> None:
    kappas = np.array([0.5, bad, 0.25], np.float32)
    z = np.ones((4, 3, 9), np.float32)
    assert kernels.jr_onnx_test_channel_pass(
        0, kappas.ctypes.data, math.inf, z.ctypes.data, None, z.ctypes.data, z.size, 9, 3
    ) is None  # fmt: skip
    assert np.isnan(z[:, 1]).all()
    assert (z[:, [0, 2]] == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_cuda_behind_a_bias(kernels: ctypes.CDLL, name: str) -> None:
    shape = (2, 5, 7, 3)
    kappas = kappas_for(5)
    x = values_for(name, shape, kappas, 1)
    bias = np.random.default_rng(1).standard_normal(5).astype(x.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        z = (x + bias[:, None, None]).astype(x.dtype)
    out = np.empty_like(x)
    error = kernels.jr_onnx_test_channel_pass(
        NAMES.index(name), kappas.ctypes.data, 2.0, x.ctypes.data, bias.ctypes.data, out.ctypes.data, x.size, 21, 5
    )
    assert error is None
    assert out.tobytes() == expected(name, z, kappas, 1, 2.0)


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_a_bias_on_the_cpu(make_session: MakeSession, name: str) -> None:
    kind = NUMBERS[name]
    kappas = kappas_for(5)
    x = values_for(name, (2, 5, 3, 3), kappas, 1)
    bias = np.random.default_rng(1).standard_normal(5).astype(x.dtype)
    inputs = [
        helper.make_tensor_value_info("x", kind, ["N", 5, 3, 3]),
        helper.make_tensor_value_info("bias", kind, [5]),
        helper.make_tensor_value_info("kappa", FLOAT, None),
    ]
    node = helper.make_node("BiasJumpRelu", ["x", "bias", "", "kappa"], ["y"], name="site", domain="jr_onnx")
    session = make_session([node], inputs, [helper.make_tensor_value_info("y", kind, None)])
    with np.errstate(invalid="ignore", over="ignore"):
        z = (x + bias[:, None, None]).astype(x.dtype)
    (found,) = session.run(None, {"x": x, "bias": bias, "kappa": kappas[:, None, None]})
    assert found.tobytes() == expected(name, z, kappas, 1, None)
    with pytest.raises(Exception, match="lies along another axis than the bias, which lies along axis 1"):
        session.run(None, {"x": x, "bias": bias, "kappa": np.zeros(3, np.float32)})
