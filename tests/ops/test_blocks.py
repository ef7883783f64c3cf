"""A kappa for each channel of a tensor whose channels lie in blocks: the bits of NumPy's J, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.ops.conftest import MakeSession
from tests.ops.samples import sample
from tests.ops.test_channels import FLOAT, expected, kappas_for, open_session, values_for

# Widths that the kernel keeps in registers and others, planes that are handled as rows, whole, and in parts.
BLOCKS = (
    (1, (2, 5, 7, 3)), (2, (3, 6, 5, 5)), (3, (1, 6, 2, 4)), (8, (2, 24, 1, 1)), (8, (1, 16, 9, 13)), (8, (2, 8, 1)),
    (16, (3, 32, 2, 3)), (16, (1, 16, 40, 40)), (16, (2, 48, 15, 7)), (16, (0, 16, 2, 2)), (16, (5, 32)),
    (20, (2, 40, 30, 1)),
)  # fmt: skip


def blocked(z: NDArray[Any], block: int) -> NDArray[Any]:
    """Return a tensor (N, C, ...) whose memory holds (N, C / block, ..., block)."""
    n, channels, *rest = z.shape
    parts = np.moveaxis(z.reshape(n, channels // block, block, *rest), 2, -1)
    return np.ascontiguousarray(parts).reshape(z.shape)


def plain(z: NDArray[Any], block: int) -> NDArray[Any]:
    """Undo `blocked`."""
    n, channels, *rest = z.shape
    return np.ascontiguousarray(np.moveaxis(z.reshape(n, channels // block, *rest, block), -1, 2)).reshape(z.shape)


def along_channels(kappas: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    return kappas.reshape(-1, *(1 for _ in range(rank - 2)))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_every_type_and_dispatch_level(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, name: str, isa: str
) -> None:
    monkeypatch.setenv("JR_ONNX_ISA", isa)
    for (block, shape), parallel in itertools.product(BLOCKS, ("1", "1000000000")):
        monkeypatch.setenv("JR_ONNX_PARALLEL_BYTES", parallel)
        attributes: dict[str, float] = {"cap": 0.5} if parallel == "1" else {}
        kappas = kappas_for(shape[1])
        z = values_for(name, shape, kappas, 1)
        given = along_channels(kappas, len(shape))
        session = open_session(make_session, name, len(shape), given.ndim, channel_block=block, **attributes)
        (found,) = session.run(None, {"z": blocked(z, block), "kappa": given})
        assert found.shape == shape
        bits = plain(found, block).tobytes()
        assert bits == expected(name, z, kappas, 1, attributes.get("cap")), (block, shape, parallel)


def test_bfloat16(make_session: MakeSession) -> None:
    kappas = kappas_for(32)
    z = values_for("bfloat16", (3, 32, 5, 7), kappas, 1)
    session = open_session(make_session, "bfloat16", 4, 3, channel_block=16)
    (found,) = session.run(None, {"z": blocked(z, 16).astype(np.float32), "kappa": kappas[:, None, None]})
    assert plain(found, 16).astype(z.dtype).tobytes() == expected("bfloat16", z, kappas, 1, None)


def test_in_place_and_in_parts(make_session: MakeSession) -> None:
    """A chain of jumps, the second of which works in place, on planes of more than one piece and two threads."""
    for block, shape in ((16, (1, 32, 112, 112)), (8, (2, 16, 97, 101)), (4, (1, 4, 200, 200))):
        kappas = np.stack([kappas_for(shape[1], seed=seed) for seed in (0, 1)])
        z = sample("float32", math.prod(shape), 0.5).reshape(shape)
        inputs = [helper.make_tensor_value_info("z", FLOAT, list(shape))]
        inputs += [helper.make_tensor_value_info(name, FLOAT, [shape[1], 1, 1]) for name in ("a", "b")]
        nodes = [
            helper.make_node("JumpRelu", ["z", "a"], ["h"], domain="jr_onnx", channel_block=block),
            helper.make_node("JumpRelu", ["h", "b"], ["y"], domain="jr_onnx", channel_block=block),
        ]
        outputs = [helper.make_tensor_value_info("y", FLOAT, list(shape))]
        session = make_session(nodes, inputs, outputs, intra_op_num_threads=2)
        feed = {"z": blocked(z, block), "a": kappas[0][:, None, None], "b": kappas[1][:, None, None]}
        (found,) = session.run(None, feed)
        once = np.frombuffer(expected("float32", z, kappas[0], 1, None), np.float32).reshape(shape)
        assert plain(found, block).tobytes() == expected("float32", once, kappas[1], 1, None)


def test_one_kappa_needs_no_layout(make_session: MakeSession) -> None:
    z = sample("float32", 96, 0.5).reshape(1, 24, 2, 2)
    session = open_session(make_session, "float32", 4, 1, channel_block=16)
    (found,) = session.run(None, {"z": z, "kappa": np.array([0.5], np.float32)})
    assert found.tobytes() == expected("float32", z, np.full(24, 0.5, np.float32), 1, None)


@pytest.mark.parametrize("block", [16, 5, 48, 2**40])
def test_a_block_that_does_not_divide_the_channels_is_refused(make_session: MakeSession, block: int) -> None:
    session = open_session(make_session, "float32", 4, 3, channel_block=block)
    said = f"JumpRelu node 'site': channel_block is {block}, expected a divisor of the number of channels, 24"
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=said):
        session.run(None, {"z": np.zeros((1, 24, 2, 2), np.float32), "kappa": np.zeros((24, 1, 1), np.float32)})


@pytest.mark.parametrize("block", [0, -16])
def test_a_block_below_1_is_refused(make_session: MakeSession, block: int) -> None:
    with pytest.raises(Exception, match=f"channel_block is {block}, expected a number >= 1"):
        open_session(make_session, "float32", 4, 3, channel_block=block)


def test_a_block_without_a_kappa_input_is_refused(make_session: MakeSession) -> None:
    value = helper.make_tensor_value_info("z", FLOAT, [1, 16])
    node = helper.make_node("JumpRelu", ["z"], ["y"], domain="jr_onnx", kappa=0.5, channel_block=16)
    with pytest.raises(Exception, match="channel_block is given without a second input"):
        make_session([node], [value], [helper.make_tensor_value_info("y", FLOAT, None)])


def test_behind_a_bias_blocks_are_refused(make_session: MakeSession) -> None:
    inputs = [helper.make_tensor_value_info("x", FLOAT, [1, 16, 2, 2]), helper.make_tensor_value_info("b", FLOAT, [16])]
    inputs.append(helper.make_tensor_value_info("kappa", TensorProto.FLOAT, [16, 1, 1]))
    node = helper.make_node("BiasJumpRelu", ["x", "b", "", "kappa"], ["y"], domain="jr_onnx", channel_block=16)
    with pytest.raises(Exception, match="channel_block is 16, and only JumpRelu on the CPU knows blocks of channels"):
        make_session([node], inputs, [helper.make_tensor_value_info("y", FLOAT, None)])
