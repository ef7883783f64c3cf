"""ONNX Runtime really gives the kernel one buffer for input and output, and two where the input is still needed."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.semantics import jump_relu, round_kappa
from tests.ops.conftest import CPU_SOURCES

KAPPA = round_kappa(0.06, "float32")
RUNS = 5


@pytest.fixture(scope="module")
def watched(compile_cxx: Any) -> Path:
    """The library with a watch on its buffers."""
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 24):
        pytest.skip("the watch copies the table of ONNX Runtime 1.24 and newer")
    register = compile_cxx("register.o", ["register.cc"], "-c", "-O0", "-fPIC", "-DRegisterCustomOps=inner_register")
    return Path(compile_cxx("libwatched.so", ["address_probe.cc", *CPU_SOURCES, register], "-O0", "-shared", "-fPIC"))


def run_chain(make_session: Any, watched: Path, shape: Any, extra: Any = (), **attributes: Any) -> tuple[int, int]:
    """Run Neg -> JumpRelu -> Neg, and return how often the buffers were one and how often two."""
    inputs = ["negated", "kappa"] if "kappa" in extra else ["negated"]
    nodes = [
        helper.make_node("Neg", ["z"], ["negated"]),
        helper.make_node("JumpRelu", inputs, ["jumped"], domain="jr_onnx", **attributes),
        helper.make_node("Neg", ["jumped"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    values = [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)]
    feeds = {"z": np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)}
    if "kappa" in extra:
        values.append(helper.make_tensor_value_info("kappa", TensorProto.FLOAT, ()))
        feeds["kappa"] = np.array(KAPPA, np.float32)
    if "second use" in extra:
        nodes.append(helper.make_node("Add", ["negated", "jumped"], ["also"]))
        outputs.append(helper.make_tensor_value_info("also", TensorProto.FLOAT, shape))
    session = make_session(nodes, values, outputs, library=watched)
    library = ctypes.CDLL(str(watched))
    library.jr_onnx_test_reset()
    for _ in range(RUNS):
        result = session.run(["y"], feeds)[0]
        assert result.tobytes() == (-jump_relu(-feeds["z"], KAPPA)).tobytes()
    return library.jr_onnx_test_in_place(), library.jr_onnx_test_apart()


@pytest.mark.parametrize("shape", [(4, 1000), ("N", 1000), ("N", "M")], ids=str)
def test_in_place_for_static_and_symbolic_shapes(make_session: Any, watched: Path, shape: Any) -> None:
    assert run_chain(make_session, watched, shape, kappa=0.06) == (RUNS, 0)


def test_apart_where_the_input_is_needed_again(make_session: Any, watched: Path) -> None:
    assert run_chain(make_session, watched, (4, 1000), ("second use",), kappa=0.06) == (0, RUNS)


def test_apart_on_an_input_of_the_graph(make_session: Any, watched: Path) -> None:
    node = helper.make_node("JumpRelu", ["z"], ["y"], domain="jr_onnx", kappa=0.06)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1000,)) for name in ("z", "y")]
    session = make_session([node], values[:1], values[1:], library=watched)
    library = ctypes.CDLL(str(watched))
    library.jr_onnx_test_reset()
    z = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    before = z.copy()
    session.run(None, {"z": z})
    assert (library.jr_onnx_test_in_place(), library.jr_onnx_test_apart()) == (0, 1)
    assert z.tobytes() == before.tobytes()
