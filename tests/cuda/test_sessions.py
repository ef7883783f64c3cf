"""Sessions on the CUDA provider: placement, copies, threads, and what happens when CUDA fails."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.runtime import register
from jr_onnx.semantics import jump_relu, round_kappa
from tests.cuda.conftest import Bound, Open
from tools.checks.gpu.sessions import (
    CPU,
    CUDA,
    conv_model,
    elementwise,
    jump_node,
    optimised_operators,
    providers_of_operators,
)

Z = np.array([np.nan, np.inf, -np.inf, -1, -0.0, 0, 0.06, 0.0600001, 1, 7], np.float32)


def test_the_op_runs_on_the_provider(open_session: Open) -> None:
    session = open_session([jump_node("x", "y", kappa=0.06)])
    for count in (0, 1, 10, 4097):
        z = np.resize(Z, count)
        assert session.run(None, {"x": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, "float32")).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types(fake: ctypes.CDLL, dtype: str) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = elementwise([jump_node("x", "y", kappa=0.06, cap=6.0)], element=element)
    options = onnxruntime.SessionOptions()
    register(options, "cuda")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CUDA, CPU])
    z = Z.astype(dtype)
    assert session.run(None, {"x": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, dtype), 6.0).tobytes()


@pytest.mark.parametrize("op_type", ["JumpRelu", "BiasJumpRelu"])
def test_blocks_of_channels_are_refused(fake: ctypes.CDLL, op_type: str) -> None:
    """They are a layout of the CPU; ignored, channels would get each other's kappas."""
    shapes = {"z": [1, 16, 2, 2], "b": [16], "k": [16, 1, 1]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    given = ["z", "k"] if op_type == "JumpRelu" else ["z", "b", "", "k"]
    node = helper.make_node(op_type, given, ["y"], name="site", domain="jr_onnx", channel_block=16)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("jr_onnx", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    register(options, "cuda")
    said = f"{op_type} node 'site': channel_block is 16, and only JumpRelu on the CPU knows blocks of channels"
    with pytest.raises(Exception, match=said):
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CUDA])


def test_bound_memory_is_used_as_it_is_and_the_input_stays(open_session: Open) -> None:
    bound = Bound(open_session([jump_node("x", "y", kappa=0.06)], shape=(10,)), {"x": Z}, (10,))
    expected = jump_relu(Z, round_kappa(0.06, "float32")).tobytes()
    assert bound.run().tobytes() == expected
    assert bound.run().tobytes() == expected, "the input was not written over"


def test_many_threads_share_a_session(open_session: Open) -> None:
    session = open_session([jump_node("x", "a", kappa_low=0.2, kappa_high=0.6), jump_node("a", "y", kappa=0.1)])
    grid = np.linspace(0, 1, 2001, dtype=np.float32)

    def ask(_: int) -> float:
        y = session.run(None, {"x": grid})[0]
        kappa = float(grid[y == 0].max())
        assert y.tobytes() == jump_relu(grid, kappa).tobytes(), "one kappa for the whole tensor"
        return kappa

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(ask, range(400)))
    assert len(set(seen)) > 200


def test_a_launch_for_each_site_and_none_for_nothing(fake: ctypes.CDLL, open_session: Open) -> None:
    session = open_session([jump_node("x", "a", kappa=0.06), jump_node("a", "y", kappa=0.1)])
    session.run(None, {"x": Z})
    before = fake.fake_cuda_launches()
    session.run(None, {"x": Z})
    assert fake.fake_cuda_launches() - before == 2
    session.run(None, {"x": Z[:0]})
    assert fake.fake_cuda_launches() - before == 2


@pytest.mark.parametrize(("opset", "placed"), [(17, CUDA), (21, CUDA), (22, CPU), (24, CPU)])
def test_where_thresholded_relu_runs(fake: ctypes.CDLL, opset: int, placed: str) -> None:
    """The CUDA provider has no kernel for the operator's version 22, so it is copied to the CPU and back."""
    model = conv_model("ThresholdedRelu", opset, alpha=0.06)
    feed = {"x": np.ones((1, 8, 16, 16), np.float32)}
    assert providers_of_operators(model, [CUDA, CPU], feed)["ThresholdedRelu"] == placed
    copies = optimised_operators(model, [CUDA, CPU])
    assert (copies["MemcpyToHost"], copies["MemcpyFromHost"]) == ((0, 0) if placed == CUDA else (1, 1))


@pytest.mark.parametrize("opset", [17, 22])
def test_conv_and_relu_are_not_fused(fake: ctypes.CDLL, opset: int) -> None:
    """So a jump costs what a Relu costs there, and nothing is lost by retrofitting before optimisation."""
    found = optimised_operators(conv_model("Relu", opset), [CUDA, CPU])
    assert (found["Conv"], found["Relu"]) == (2, 1)


def _in_a_process_of_its_own(fails: str, code: str) -> str:
    """Run code with a CUDA that fails; return the last line of what it prints."""
    environment = {**os.environ, "FAKE_CUDA_FAIL": fails}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


_OPEN = """
import numpy as np, onnxruntime
from jr_onnx.runtime import register
from tools.checks.gpu.sessions import *
options = onnxruntime.SessionOptions(); options.log_severity_level = 4; register(options, "cuda")
model = elementwise([jump_node("x", "y", kappa_low=0.2, kappa_high=0.6)])
try:
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CUDA], enable_fallback=0)
    print(session.run(None, {"x": np.ones(4, np.float32)})[0].tolist())
except Exception as error:
    print(" ".join(str(error).split()))
"""


def test_memory_that_cuda_refuses_fails_the_session(fake: ctypes.CDLL) -> None:
    assert _in_a_process_of_its_own("none", _OPEN) == "[1.0, 1.0, 1.0, 1.0]"
    said = _in_a_process_of_its_own("cudaMalloc", _OPEN)
    assert "out of memory" in said.lower() or "Failed to allocate" in said


def test_no_device_fails_the_session(fake: ctypes.CDLL) -> None:
    assert "CUDA" in _in_a_process_of_its_own("cudaSetDevice", _OPEN)


_OURS = """
import logging
from tools.checks.gpu.sessions import *
import jr_onnx
logging.basicConfig(format="%(message)s")
model = jr_onnx.rewrite(conv_model("Relu", 17), 0.25)[0]
session = jr_onnx.InferenceSession(model.SerializeToString(), providers=[CUDA, CPU])
print(session.get_providers(), session.retrofit.mode, session.retrofit.fused)
"""


def test_the_session_does_without_a_cuda_that_fails(fake: ctypes.CDLL) -> None:
    assert _in_a_process_of_its_own("none", _OURS) == f"['{CUDA}', '{CPU}'] optimised 0"
    environment = {**os.environ, "FAKE_CUDA_FAIL": "cudaSetDevice"}
    done = subprocess.run(
        [sys.executable, "-c", _OURS], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.stdout.splitlines()[-1] == f"['{CPU}'] optimised 0"
    assert f"{CUDA} was asked for and is not usable here, so the session runs without it: " in done.stderr
