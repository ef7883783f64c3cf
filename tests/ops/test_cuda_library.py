"""The CUDA library: it builds, links, loads and serves the CPU without a GPU; on a GPU it computes the same bits."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jr_onnx.runtime import library_path, status
from jr_onnx.runtime.providers import check_providers
from jr_onnx.semantics import jump_relu, round_kappa
from tests.ops.conftest import ROOT

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}


@pytest.fixture(scope="module")
def cuda_library() -> Path:
    if shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("no nvcc on this machine")
    return library_path("cuda")


@pytest.fixture(scope="module")
def gpu(cuda_library: Path) -> Path:
    """The library, where a session really runs on a GPU."""
    for provider in check_providers():
        if provider.name == "CUDAExecutionProvider" and provider.works:
            return cuda_library
    pytest.skip("no GPU that ONNX Runtime can use on this machine")


def test_it_loads_and_serves_the_cpu_without_a_gpu(cuda_library: Path) -> None:
    found = status("cuda")
    assert (found.built, found.loadable, found.reason) == (True, True, "")
    assert found.path == str(cuda_library)


def test_every_dtype_on_the_cpu(cuda_library: Path, make_session: Any) -> None:
    for dtype, kind in TYPES.items():
        values = [helper.make_tensor_value_info(name, kind, ("N",)) for name in "zy"]
        node = helper.make_node("JumpRelu", ["z"], ["y"], domain="jr_onnx", kappa=0.06)
        session = make_session([node], values[:1], values[1:], library=cuda_library)
        z = np.linspace(-1, 1, 1001).astype(dtype)
        assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, round_kappa(0.06, dtype)).tobytes()


def test_it_needs_no_cuda_library_of_the_system(cuda_library: Path) -> None:
    """The runtime is linked in, the driver is opened when a kernel is launched."""
    if shutil.which("ldd") is None:
        pytest.skip("no ldd on this machine")
    text = subprocess.run(["ldd", cuda_library], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in text
    assert "cudart" not in text
    assert "libcuda.so" not in text


def test_one_symbol_is_visible(cuda_library: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm on this machine")
    for path in (library_path("cpu"), cuda_library):
        text = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
        assert [line.split()[-1] for line in text.splitlines()] == ["RegisterCustomOps"]


def setup_architectures() -> tuple[int, ...]:
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    return tuple(ast.literal_eval(re.search(r"^CUDA_ARCHITECTURES = (.*)$", text, re.MULTILINE)[1]))  # type: ignore[index]


def test_machine_code_for_every_wanted_gpu_and_ptx(cuda_library: Path) -> None:
    data = cuda_library.read_bytes()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    wanted = [number for number in map(str, setup_architectures()) if f"compute_{number}" in known]
    assert wanted
    for name in (*(f"sm_{number}" for number in wanted), f"compute_{wanted[-1]}"):
        assert name.encode() in data, name


def open_on_gpu(
    library: Path, nodes: Any, inputs: Any, outputs: Any, provider_options: dict[str, str] | None = None
) -> onnxruntime.InferenceSession:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("jr_onnx", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    providers = [("CUDAExecutionProvider", provider_options or {}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    return session


@pytest.mark.gpu
@pytest.mark.parametrize("cap", [None, 0.5], ids=str)
@pytest.mark.parametrize("dtype", TYPES)
def test_gpu_agrees_bit_for_bit(gpu: Path, dtype: str, cap: float | None) -> None:
    attributes = {"kappa": 0.06} if cap is None else {"kappa": 0.06, "cap": cap}
    node = helper.make_node("JumpRelu", ["z"], ["y"], domain="jr_onnx", **attributes)
    values = [helper.make_tensor_value_info(name, TYPES[dtype], ("N",)) for name in "zy"]
    session = open_on_gpu(gpu, [node], values[:1], values[1:])
    kappa = round_kappa(0.06, dtype)
    corners = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, kappa, 1e-45, -1.0], dtype)
    corners = np.append(corners, np.nextafter(np.array(kappa, dtype), np.array(9, dtype)))
    for count in (*range(130), 4095, 4096, 4097, 1_000_003):
        z = np.resize(np.append(corners, np.random.default_rng(count).standard_normal(101)), count).astype(dtype)
        assert session.run(None, {"z": z})[0].tobytes() == jump_relu(z, kappa, cap).tobytes(), count


@pytest.mark.gpu
def test_gpu_reads_a_kappa_that_was_drawn_there(gpu: Path) -> None:
    nodes = [
        helper.make_node("DrawKappa", [], ["k"], domain="jr_onnx", low=0.1, high=0.9),
        helper.make_node("JumpRelu", ["z", "k"], ["y"], domain="jr_onnx"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N",)) for name in "zy"]
    session = open_on_gpu(
        gpu, nodes, values[:1], [values[1], helper.make_tensor_value_info("k", TensorProto.FLOAT, ())]
    )
    z = np.linspace(0, 1, 10_001, dtype=np.float32)
    for _ in range(20):
        y, kappa = session.run(None, {"z": z})
        assert y.tobytes() == jump_relu(z, float(kappa)).tobytes()


@pytest.mark.gpu
def test_a_captured_graph_draws_anew_at_every_replay(gpu: Path) -> None:
    node = helper.make_node("JumpRelu", ["z"], ["y"], name="site", domain="jr_onnx", kappa_low=0.1, kappa_high=0.9)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1024,)) for name in "zy"]
    session = open_on_gpu(gpu, [node], values[:1], values[1:], {"enable_cuda_graph": "1"})
    z = np.linspace(0, 1, 1024, dtype=np.float32)
    binding = session.io_binding()
    result = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1024, np.float32), "cuda", 0)
    binding.bind_ortvalue_input("z", onnxruntime.OrtValue.ortvalue_from_numpy(z, "cuda", 0))
    binding.bind_ortvalue_output("y", result)
    seen = set()
    for _ in range(20):
        session.run_with_iobinding(binding)
        y = result.numpy()
        kept = y[y > 0]
        assert np.array_equal(kept, z[z >= kept.min()]), "one kappa for the whole tensor"
        seen.add(float(kept.min()))
    assert len(seen) > 10
