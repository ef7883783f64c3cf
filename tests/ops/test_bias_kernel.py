"""bias (+ residual) + J in one pass gives the bits of the separate operators, on CUDA (thread by thread) and CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.semantics import jump_relu, round_kappa
from tests.ops.conftest import MakeSession
from tests.ops.samples import DTYPES, NAMES, sample

TYPES = {name: (dtype, bits) for name, dtype, bits in DTYPES}
SHAPES = ((2, 3, 1, 1), (1, 5, 7, 7), (2, 8, 4, 4), (3, 17, 1, 3), (1, 64, 14, 14), (2, 4))


def operands(name: str, shape: tuple[int, ...], axis: int, seed: int) -> tuple[npt.NDArray[Any], ...]:
    """An input with corner values among the rest, a bias and a residual."""
    x, residual = (sample(name, int(np.prod(shape)), 0.06, seed=seed + i).reshape(shape) for i in range(2))
    generator = np.random.default_rng(seed)
    return x, generator.standard_normal(shape[axis]).astype(x.dtype), residual


def expected(
    name: str, x: npt.NDArray[Any], bias: npt.NDArray[Any], residual: npt.NDArray[Any] | None, axis: int, **jump: Any
) -> bytes:
    with np.errstate(invalid="ignore", over="ignore"):
        z = x + bias.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
        z = z if residual is None else z + residual
    return jump_relu(z, round_kappa(jump["kappa"], name), jump.get("cap")).tobytes()


def aligned(value: npt.NDArray[Any], offset: int) -> npt.NDArray[Any]:
    """Copy to an address that lies so many elements behind a multiple of 16 bytes."""
    room = np.zeros(value.nbytes + 32 + offset * value.itemsize, np.uint8)
    start = -room.ctypes.data % 16 + offset * value.itemsize
    room[start : start + value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
    return room[start : start + value.nbytes].view(value.dtype).reshape(value.shape)


@pytest.mark.parametrize("axis", [1, -1], ids=["channels first", "channels last"])
@pytest.mark.parametrize("has_residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("name", NAMES)
def test_cuda(kernels: ctypes.CDLL, order: None, name: str, has_residual: bool, axis: int) -> None:
    for shape in SHAPES:
        for offset, cap, in_memory in ((0, None, False), (1, 0.5, False), (0, 0.5, True)):
            x, bias, residual = operands(name, shape, axis, seed=len(shape))
            held = [aligned(x, offset), bias, aligned(residual, offset)]
            out = aligned(np.zeros_like(x), offset)
            addresses = (
                [item.ctypes.data for item in held] if has_residual else [*(i.ctypes.data for i in held[:2]), None]
            )
            error = kernels.jr_onnx_test_bias_pass(
                NAMES.index(name), in_memory, cap is not None, ctypes.c_float(0.06), cap or 0.0, *addresses,
                out.ctypes.data, x.size, int(np.prod(shape[axis:][1:])), shape[axis],
            )  # fmt: skip
            assert error is None
            wanted = expected(name, x, bias, residual if has_residual else None, axis, kappa=0.06, cap=cap)
            assert out.tobytes() == wanted, (shape, offset, cap, in_memory)


@pytest.mark.parametrize("has_residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_cpu(make_session: MakeSession, name: str, has_residual: bool) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    for axis in (1, -1):
        for shape in SHAPES:
            session = open_node(make_session, element, axis, has_residual=has_residual, kappa=0.06, cap=2.0)
            x, bias, residual = operands(name, shape, axis, seed=1)
            feed = {"x": x, "bias": bias, **({"residual": residual} if has_residual else {})}
            wanted = expected(name, x, bias, residual if has_residual else None, axis, kappa=0.06, cap=2.0)
            assert session.run(None, feed)[0].tobytes() == wanted


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sums_of_half_types_are_rounded_once(kernels: ctypes.CDLL, name: str) -> None:
    """Every value of the type plus some others, infinities, NaN and subnormals among them, at kappa 0."""
    dtype, bits = TYPES[name]
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    for seed in range(40):
        pattern = np.random.default_rng(seed).integers(0, 1 << 16, 1, dtype=np.uint16)
        bias = pattern.view(dtype)
        out = np.zeros_like(x)
        error = kernels.jr_onnx_test_bias_pass(
            NAMES.index(name), False, False, ctypes.c_float(0), 0.0, x.ctypes.data, bias.ctypes.data, None,
            out.ctypes.data, x.size, x.size, 1,
        )  # fmt: skip
        assert error is None
        assert out.tobytes() == expected(name, x, bias, None, 0, kappa=0.0), hex(int(pattern[0]))
    assert bits == np.uint16


def open_node(
    make_session: MakeSession, element: int, axis: int, *, has_residual: bool, **attributes: float
) -> onnxruntime.InferenceSession:
    names = ["x", "bias", *(["residual"] if has_residual else [])]
    node = helper.make_node("BiasJumpRelu", names, ["y"], name="site", domain="jr_onnx", axis=axis, **attributes)
    values = [helper.make_tensor_value_info(item, element, None) for item in (*names, "y")]
    return make_session([node], values[:-1], values[-1:])


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            ((2, 3, 4), (4,), (2, 3, 4)),
            r"the bias has the shape \(4\), expected one element for each of the 3",
        ),
        (((2, 3, 4), (3, 1), (2, 3, 4)), r"the bias has the shape \(3, 1\)"),
        (
            ((2, 3, 4), (3,), (1, 3, 4)),
            r"the residual has the shape \(1, 3, 4\), expected that of the input",
        ),
        (((2,), (2,), (2,)), r"axis is 1, the input has the shape \(2\)"),
    ],
)
def test_shapes_that_do_not_fit(make_session: MakeSession, shapes: Any, words: str) -> None:
    session = open_node(make_session, TensorProto.FLOAT, 1, has_residual=True, kappa=0.5)
    feed = dict(zip(("x", "bias", "residual"), (np.ones(shape, np.float32) for shape in shapes), strict=True))
    with pytest.raises(Exception, match=f"BiasJumpRelu node 'site': {words}"):
        session.run(None, feed)
