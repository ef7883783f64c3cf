"""Build the fake CUDA libraries for the CUDA provider that is installed: `python -m tests.cuda.fake FOLDER`.

With FOLDER on LD_LIBRARY_PATH, onnxruntime-gpu opens sessions on its CUDA provider without a GPU. `cudart.cc` says what
that can tell and what not. Where CUDA's headers or the compiler are not installed, FOLDER gets no runtime, so that the
tests skip; whatever else goes wrong is an error.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EMULATED = ROOT / "tests" / "ops" / "emulated_cuda"
CXX = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared"]
RUNTIME = "libcudart.so.13"
OWN = {RUNTIME: "cudart.cc", "libcudnn.so.9": "cudnn_graph.cc"}


class CannotBuildError(Exception):
    """The libraries cannot be built; one line says why."""


class NotInstalledError(CannotBuildError):
    """CUDA's headers or a tool are not installed on this machine."""


def provider_library() -> Path:
    """Return the CUDA provider of the installed onnxruntime-gpu, without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise CannotBuildError("onnxruntime is not installed")
    path = Path(spec.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not path.is_file():
        raise CannotBuildError("onnxruntime is installed without its CUDA provider: onnxruntime-gpu is needed")
    return path


def cuda_headers() -> Path:
    """Return the folder of CUDA's headers."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", nvcc and str(Path(nvcc).resolve().parent.parent)]
    for home in homes:
        if home and (Path(home) / "include" / "cuda_runtime.h").is_file():
            return Path(home) / "include"
    raise NotInstalledError("CUDA's headers are not here (cuda_runtime.h; CUDA_HOME names their place)")


def wanted_symbols(provider: Path) -> dict[str, set[str]]:
    """Return the functions that the provider needs, by the library that has them."""
    table = subprocess.run(
        ["nm", "-D", "--undefined-only", provider], capture_output=True, text=True, check=True
    ).stdout
    wanted: dict[str, set[str]] = {"libcudnn.so.9": set(), "libcuda.so.1": set(), "libcurand.so.10": set()}
    for word in (line.split()[-1] for line in table.splitlines() if line.strip()):
        name, _, library = word.partition("@")
        if library.startswith("libcu"):
            wanted.setdefault(library, set()).add(name)
        elif re.match(r"cu[A-Z]", name):
            wanted["libcuda.so.1"].add(name)
    # cuDNN is opened at run time, and its functions are looked up by name.
    wanted["libcudnn.so.9"] = {word.decode() for word in re.findall(rb"\bcudnn[A-Z]\w+", provider.read_bytes())}
    return wanted


def stub(name: str) -> str:
    """Return a function that does as little as its callers accept."""
    if name.endswith(("String", "StatusName")):
        return f'const char* {name}(int) {{ return "an error of a fake library"; }}'
    if name == "cudnnGetVersion":
        return f"unsigned long {name}() {{ return 91900; }}"
    if re.search(r"Create|AlgoInit", name):
        return f"int {name}(void** out) {{ if (out) *out = std::calloc(1, 64); return 0; }}"
    return f"int {name}() {{ return 0; }}"


def build(folder: Path) -> None:
    """Build every library, the op library with its kernels on the CPU included.

    Raises:
        NotInstalledError: Headers or tools are missing here.
        CannotBuildError: The CUDA provider is missing, or a library does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for tool in (CXX[0], "nm"):
        if shutil.which(tool) is None:
            raise NotInstalledError(f"{tool} is not on PATH")
    headers = cuda_headers()
    for library, names in wanted_symbols(provider_library()).items():
        sources = []
        done: set[str] = set()
        if library in OWN:
            source = HERE / OWN[library]
            done = set(re.findall(r"^[\w* ]+?\*?\b(\w+)\(", source.read_text(encoding="utf-8"), re.MULTILINE))
            sources.append(str(source))
        stubs = folder / f"{library}.cc"
        lines = ["#include <cstdlib>", 'extern "C" {', *(stub(name) for name in sorted(names - done)), "}"]
        stubs.write_text("\n".join(lines) + "\n", encoding="utf-8")
        _compile(folder / library, [str(stubs), *sources], [f"-I{headers}", f"-Wl,-soname,{library}"])
    _build_op_library(folder / "ops")


def _build_op_library(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    ops = ROOT / "ops"
    sources = [path for path in sorted(ops.iterdir()) if path.suffix in (".cc", ".cu") and path.name != "abi_check.cc"]
    flags = ["-DJR_WITH_CUDA", "-fvisibility=hidden", "-Wno-unknown-pragmas", f"-I{EMULATED}", f"-I{ops}"]
    _compile(folder / "libjr_onnx_cuda.so", ["-x", "c++", *map(str, sources)], flags)
    shutil.copy(folder / "libjr_onnx_cuda.so", folder / "libjr_onnx_cpu.so")


def _compile(output: Path, sources: Iterable[str], flags: list[str]) -> None:
    fresh = output.with_suffix(".new")
    done = subprocess.run(
        [*CXX, *flags, *sources, "-ldl", "-o", str(fresh)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBuildError(f"{output.name} does not compile: {done.stderr.strip().splitlines()[0]}")
    fresh.replace(output)


def main(folder: Path) -> None:
    """Build the libraries, or say why the tests skip."""
    try:
        build(folder)
    except NotInstalledError as error:
        (folder / RUNTIME).unlink(missing_ok=True)  # one from earlier would test other sources than these
        sys.stderr.write(f"the tests of the CUDA side skip: {error}\n")
    except CannotBuildError as error:
        sys.exit(f"the fake CUDA libraries cannot be built: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
