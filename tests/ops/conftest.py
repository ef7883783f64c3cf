"""Fixtures of the op library's tests: a compiler, the kernel behind ctypes, sessions with the operators."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import helper

from jr_onnx.runtime import library_path, register

ROOT = Path(__file__).resolve().parent.parent.parent
OPS = ROOT / "ops"
HERE = Path(__file__).resolve().parent
Compile = Callable[..., Path]
# The CPU library without `register.cc`, which exports its one symbol.
CPU_SOURCES = (
    "runtime.cc",
    "kappa.cc",
    "cpu_kernel.cc",
    "jump_relu_op.cc",
    "jump_relu_cpu.cc",
    "bias_jump_relu.cc",
    "draw_kappa.cc",
)
# The CUDA kernels as g++ compiles them for the CPU.
EMULATED_FLAGS = (f"-I{HERE / 'emulated_cuda'}", "-Wno-unknown-pragmas", "-x", "c++")
EMULATED_SOURCES = ("cuda_kernel.cu", "cuda_draw.cu", "bias_kernel.cu", "kappa.cc")


@pytest.fixture(scope="session")
def cxx() -> list[str]:
    wanted = os.environ.get("CXX", "").strip()
    if wanted:
        return shlex.split(wanted)
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    pytest.skip("no C++ compiler on this machine")


def can_sanitize(cxx: list[str], folder: Path, flag: str) -> bool:
    """Whether the sanitizer's own library is installed and runs here."""
    source = folder / "empty.cc"
    source.write_text("int main() { return 0; }\n")
    built = subprocess.run([*cxx, flag, str(source), "-o", str(folder / "empty")], capture_output=True, check=False)
    return (
        built.returncode == 0 and subprocess.run([folder / "empty"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="session")
def compile_cxx(cxx: list[str], tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile sources of the tests and of ops/ into one program or shared object."""

    def build(name: str, sources: Sequence[str | Path], *flags: str) -> Path:
        output = tmp_path_factory.mktemp("compiled") / name
        files = [str(HERE / item) if (HERE / item).is_file() else str(OPS / item) for item in sources]
        command = [*cxx, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{OPS}", *flags, *files, "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return output

    return build


@pytest.fixture(scope="session")
def probe(compile_cxx: Compile) -> ctypes.CDLL:
    """The CPU pass behind a C interface."""
    path = compile_cxx("libprobe.so", ["kernel_probe.cc", "cpu_kernel.cc"], "-O3", "-shared", "-fPIC")
    library = ctypes.CDLL(str(path))
    library.jr_onnx_test_apply.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_float,
        ctypes.c_float,
        ctypes.c_int,
    ]
    library.jr_onnx_test_apply.restype = None
    library.jr_onnx_test_round.argtypes = [ctypes.c_int, ctypes.c_float]
    library.jr_onnx_test_round.restype = ctypes.c_int64
    return library


@pytest.fixture(scope="session")
def cpu_library(cxx: list[str]) -> Path:
    """The library as installed; where a compiler is, its absence is a failure and not a skip."""
    path = library_path("cpu")
    newest = max(source.stat().st_mtime for source in OPS.iterdir())
    assert path.stat().st_mtime >= newest - 1, "the op library is older than ops/: run pip install -e . again"
    return path


@pytest.fixture(scope="session")
def kernels(compile_cxx: Any) -> ctypes.CDLL:
    sources = ("emulated_cuda/kernel_probe.cc", *EMULATED_SOURCES)
    library = ctypes.CDLL(str(compile_cxx("libkernels.so", sources, "-O2", "-shared", "-fPIC", *EMULATED_FLAGS)))
    library.jr_onnx_test_pass.restype = ctypes.c_char_p
    library.jr_onnx_test_pass.argtypes = [
        ctypes.c_int, ctypes.c_bool, ctypes.c_bool, ctypes.POINTER(ctypes.c_float), ctypes.c_float,
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64,
    ]  # fmt: skip
    library.jr_onnx_test_draw.restype = ctypes.c_char_p
    library.jr_onnx_test_draw.argtypes = [ctypes.c_float, ctypes.c_float, ctypes.c_void_p, ctypes.c_uint]
    library.jr_onnx_test_bias_pass.restype = ctypes.c_char_p
    library.jr_onnx_test_bias_pass.argtypes = [
        *library.jr_onnx_test_pass.argtypes[:5], *4 * [ctypes.c_void_p], *3 * [ctypes.c_uint64],
    ]  # fmt: skip
    library.jr_onnx_test_channel_pass.restype = ctypes.c_char_p
    library.jr_onnx_test_channel_pass.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_float, *3 * [ctypes.c_void_p], *3 * [ctypes.c_uint64],
    ]  # fmt: skip
    return library


@pytest.fixture(params=[(False, 0), (True, 1), (False, 3)], ids=["as launched", "one block, backwards", "three blocks"])
def order(kernels: ctypes.CDLL, request: pytest.FixtureRequest) -> Iterator[None]:
    """The order of threads and the size of the grid, which must not matter."""
    kernels.jr_onnx_test_order(*request.param)
    yield
    kernels.jr_onnx_test_order(False, 0)


MakeSession = Callable[..., onnxruntime.InferenceSession]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("jr_onnx", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


@pytest.fixture
def make_session(cpu_library: Path) -> MakeSession:
    """Open a session of a few nodes with the operators registered."""

    def build(
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        functions: Sequence[onnx.FunctionProto] = (),
        library: Path | None = None,
        **options: Any,
    ) -> onnxruntime.InferenceSession:
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 4
        for name, value in options.items():
            setattr(session_options, name, value)
        if library is None:
            register(session_options, "cpu")
        else:
            session_options.register_custom_ops_library(str(library))
        model = make_model(nodes, inputs, outputs, functions)
        return onnxruntime.InferenceSession(
            model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )

    return build
