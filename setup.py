"""Build the package; metadata is in pyproject.toml.

Beside the Python files this builds the op libraries of `ops/` into `jr_onnx/lib/`:

    libjr_onnx_cpu.so   where there is a C++17 compiler (CXX, else c++, g++ or clang++)
    libjr_onnx_cuda.so  where there is nvcc as well (NVCC, else CUDA_HOME/bin/nvcc, else on the path);
                        JR_ONNX_BUILD_CUDA=0 leaves it out

The package works without them, so a missing or failing compiler never fails the installation: it prints one line,
and `lib/build.json` keeps the reason for `jr-onnx doctor`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import setuptools
from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

_OLDEST_SETUPTOOLS = 77  # that reads the license in pyproject.toml
CAN_PACKAGE = int(setuptools.__version__.split(".")[0]) >= _OLDEST_SETUPTOOLS
if CAN_PACKAGE:
    from setuptools.command.bdist_wheel import bdist_wheel
else:
    bdist_wheel = object

ROOT = Path(__file__).resolve().parent
OPS = ROOT / "ops"
REPORT = "build.json"
HOST_SOURCES = (
    "runtime.cc",
    "kappa.cc",
    "cpu_kernel.cc",
    "jump_relu_op.cc",
    "jump_relu_cpu.cc",
    "bias_jump_relu.cc",
    "draw_kappa.cc",
    "register.cc",
)
CUDA_HOST_SOURCES = ("jump_relu_cuda.cc",)
CUDA_SOURCES = ("cuda_kernel.cu", "cuda_draw.cu", "bias_kernel.cu")
CXX_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra")
CUDA_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden")
# T4, A100, A10, L4, H100 and H200, B200, RTX 50; newer ones compile the PTX when they load it.
CUDA_ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


class BuildError(Exception):
    """A library cannot be built, and why, in one line."""


def run(command: Sequence[str]) -> str:
    """Run a compiler and return what it prints, or raise its first error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=OPS)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in complaints if "error" in line.lower()]
        detail = (errors or complaints[-1:] or [f"exit code {done.returncode}"])[0]
        raise BuildError(f"{command[0]} failed: {' '.join(detail.split())}")
    return done.stdout


def find_cxx() -> list[str]:
    """Return the C++ compiler as the words of a command."""
    if sys.platform != "linux":
        raise BuildError(f"the op libraries are built on Linux only, this is {sys.platform}")
    wish = os.environ.get("CXX", "").strip()
    if wish:
        return shlex.split(wish)
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    raise BuildError("no C++ compiler was found; install g++ (or set CXX) and reinstall")


def find_nvcc() -> str:
    """Return the path of nvcc."""
    if os.environ.get("JR_ONNX_BUILD_CUDA", "1").strip() == "0":
        raise BuildError("JR_ONNX_BUILD_CUDA=0 was set; unset it and reinstall")
    candidates = [os.environ.get("NVCC", "").strip()]
    candidates += [str(Path(home) / "bin" / "nvcc") for home in [os.environ.get("CUDA_HOME", "").strip()] if home]
    candidates += ["nvcc", "/usr/local/cuda/bin/nvcc"]
    for candidate in candidates:
        if candidate and (path := shutil.which(candidate)):
            return path
    raise BuildError("no nvcc was found; install the CUDA toolkit (or set CUDA_HOME) and reinstall")


def architecture_flags(nvcc: str) -> list[str]:
    """Return machine code for every wanted GPU that this nvcc knows, and PTX of the newest for later ones."""
    known = {int(word.rpartition("_")[2]) for word in run([nvcc, "--list-gpu-arch"]).split() if word[-1].isdigit()}
    chosen = [number for number in CUDA_ARCHITECTURES if number in known]
    if not chosen:
        raise BuildError(f"{nvcc} knows none of {CUDA_ARCHITECTURES}; install CUDA 11.1 or newer and reinstall")
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in chosen]
    return [*flags, f"-gencode=arch=compute_{chosen[-1]},code=compute_{chosen[-1]}"]


def compile_host(cxx: list[str], sources: Sequence[str], folder: Path, *defines: str) -> list[str]:
    """Compile C++ files into `folder` and return the objects."""
    objects = []
    for source in sources:
        objects.append(str(folder / f"{source}.o"))
        run([*cxx, *CXX_FLAGS, *defines, "-c", str(OPS / source), "-o", objects[-1]])
    return objects


def linker_flags() -> list[str]:
    """Return what the linker is told: one visible symbol, and never unload.

    ONNX Runtime closes the library with the last session; staying loaded keeps what is registered for the next one.
    """
    return [f"--version-script={OPS / 'exports.map'}", "-z,nodelete"]


def build_cpu(output: Path, folder: Path) -> str:
    """Build the CPU library; return the compiler's version."""
    cxx = find_cxx()
    version = run([*cxx, "--version"]).splitlines()[0]
    objects = compile_host(cxx, HOST_SOURCES, folder)
    # With its own C++ library inside, an older libstdc++ that was loaded first (conda) cannot break it.
    static = ["-static-libstdc++", "-static-libgcc"]
    link = [*cxx, "-shared", *(f"-Wl,{flag}" for flag in linker_flags())]
    try:
        run([*link, *static, *objects, "-o", str(output)])
    except BuildError:
        run([*link, *objects, "-o", str(output)])
    return version


def build_cuda(output: Path, folder: Path) -> str:
    """Build the library that serves the CPU and the CUDA provider; return nvcc's version."""
    nvcc = find_nvcc()
    cxx = find_cxx()
    version = next((line for line in run([nvcc, "--version"]).splitlines() if "release" in line), nvcc)
    objects = compile_host(cxx, HOST_SOURCES + CUDA_HOST_SOURCES, folder, "-DJR_WITH_CUDA")
    compiler = ["-ccbin", cxx[0]]
    for source in CUDA_SOURCES:
        objects.append(str(folder / f"{source}.o"))
        architectures = architecture_flags(nvcc)
        run(
            [nvcc, *compiler, *CUDA_FLAGS, "--threads", "0", *architectures, "-c", str(OPS / source), "-o", objects[-1]]
        )
    linker = [word for flag in linker_flags() for word in ("-Xlinker", flag)]
    run([nvcc, *compiler, "-shared", "-cudart", "static", *linker, *objects, "-o", str(output)])
    return version


BUILDERS = {"cpu": build_cpu, "cuda": build_cuda}


def sources_digest() -> str:
    """Return a digest of everything that decides what the libraries contain, compilers apart."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(OPS.iterdir())]:
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in ("CXX", "NVCC", "CUDA_HOME", "JR_ONNX_BUILD_CUDA"):
        digest.update(f"{name}={os.environ.get(name, '')}\0".encode())
    return digest.hexdigest()


def library_name(target: str) -> str:
    """Return the file name of a target's library."""
    return f"libjr_onnx_{target}.so"


def build_libraries(destination: Path) -> list[str]:
    """Build what can be built into `destination` and return the targets that are there.

    An up-to-date library is kept. A file is replaced in one step, so that a process which has the old one loaded
    goes on undisturbed.
    """
    destination = destination.absolute()  # compilers run in folders of their own
    destination.mkdir(parents=True, exist_ok=True)
    digest = sources_digest()
    report_path = destination / REPORT
    try:
        before = json.loads(report_path.read_text())
    except (OSError, ValueError):
        before = {}
    report: dict[str, dict[str, str]] = {}
    for target, builder in BUILDERS.items():
        output = destination / library_name(target)
        known = before.get(target, {}) if isinstance(before, dict) else {}
        if output.is_file() and known.get("digest") == digest:
            report[target] = known
            continue
        output.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=destination) as folder:
            fresh = Path(folder) / output.name
            try:
                compiler = builder(fresh, Path(folder))
            except BuildError as error:
                report[target] = {"reason": str(error)}
                print(f"jr-onnx: warning: {output.name} is not built: {error}", file=sys.stderr)
                continue
            fresh.replace(output)
        report[target] = {"digest": digest, "compiler": compiler}
    report_path.write_text(json.dumps(report, indent=1) + "\n")
    return [target for target, entry in report.items() if "digest" in entry]


class OpsDistribution(Distribution):  # type: ignore[misc] # setuptools has no types here
    """A distribution that is a platform one exactly if op libraries are in it."""

    op_targets: tuple[str, ...] | None = None

    def build_ops(self) -> Path:
        """Build the libraries once and return their folder."""
        folder = ROOT / "build" / "ops"
        if self.op_targets is None:
            try:
                self.op_targets = tuple(build_libraries(folder))
            except OSError as error:
                self.op_targets = ()
                print(f"jr-onnx: warning: the op libraries are not built: {error}", file=sys.stderr)
        return folder

    def has_ext_modules(self) -> bool:
        """Say whether the distribution holds machine code."""
        return bool(self.op_targets) or super().has_ext_modules()


class BuildPy(build_py):  # type: ignore[misc] # as above
    """Copy the op libraries beside the Python files."""

    def run(self) -> None:
        """Build, then replace whatever older libraries the package folder holds."""
        super().run()
        distribution = self.distribution
        if not isinstance(distribution, OpsDistribution):
            raise TypeError("setup() was called without its distribution class")
        built = distribution.build_ops()
        package = ROOT if self.editable_mode else Path(self.build_lib)
        destination = package / "jr_onnx" / "lib"
        destination.mkdir(parents=True, exist_ok=True)
        for stale in destination.glob("*.so"):
            if not (built / stale.name).is_file():
                stale.unlink()
        for name in [library_name(target) for target in distribution.op_targets or ()] + [REPORT]:
            if (built / name).is_file():
                temporary = destination / f".{name}.{os.getpid()}"
                shutil.copy2(built / name, temporary)
                temporary.replace(destination / name)


class BuildWheel(bdist_wheel):  # type: ignore[misc] # as above
    """Name the wheel after the platform, not after a Python: the libraries do not use Python's C interface."""

    def finalize_options(self) -> None:
        """Build first: whether the wheel is a platform wheel depends on what was built."""
        if isinstance(self.distribution, OpsDistribution):
            self.distribution.build_ops()
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        """Return py3-none-<platform>, or py3-none-any where nothing was built."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


def build_alone(arguments: Sequence[str]) -> int:
    """Build the libraries, and nothing else, where setuptools is too old for a package."""
    parser = argparse.ArgumentParser(
        description=f"setuptools {setuptools.__version__} is here, and {_OLDEST_SETUPTOOLS} or newer makes a package; "
        "with this one, only the op libraries can be built."
    )
    parser.add_argument("command", choices=["build_py"])
    parser.add_argument("-q", "--quiet", action="store_true", help="has no effect")
    parser.add_argument("--build-lib", type=Path, required=True, help="the folder that jr_onnx/lib is made in")
    options = parser.parse_args(arguments)
    return 0 if build_libraries(options.build_lib / "jr_onnx" / "lib") else 1


if __name__ == "__main__":
    if not CAN_PACKAGE:
        sys.exit(build_alone(sys.argv[1:]))
    setup(distclass=OpsDistribution, cmdclass={"build_py": BuildPy, "bdist_wheel": BuildWheel})
