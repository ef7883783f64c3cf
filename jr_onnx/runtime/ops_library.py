"""Where the op library is, how it gets into a session, and whether it really works here.

`setup.py` builds `libjr_onnx_cpu.so` and, where nvcc is, `libjr_onnx_cuda.so` (which serves the CPU provider too)
into `jr_onnx/lib/`, and writes beside them why one is missing. JR_ONNX_LIBRARIES names another folder to look in.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from jr_onnx.element_types import Array
from jr_onnx.errors import InputError, JrError, OpLibraryError, one_line, require
from jr_onnx.records import Record
from jr_onnx.runtime.running import SessionOptions
from jr_onnx.semantics import BLOCK_ATTRIBUTE, OP_DOMAIN, OP_TYPE, OP_VERSION, jump_relu, round_kappa

if TYPE_CHECKING:
    import onnx

Target = Literal["cpu", "cuda"]
TARGETS: tuple[Target, ...] = get_args(Target)

_FOLDER = Path(__file__).resolve().parent.parent / "lib"
_FOLDER_VARIABLE = "JR_ONNX_LIBRARIES"
_REPORT = "build.json"
_REBUILD = "pip install --force-reinstall --no-deps . (in the source tree)"
_NEEDS = {"cpu": "a C++17 compiler (g++ or clang++)", "cuda": "a C++17 compiler and nvcc (the CUDA toolkit)"}
_PROBE_KAPPA = 0.06


@dataclass(frozen=True, slots=True)
class LibraryStatus(Record):
    """What is known about one op library.

    Attributes:
        target: cpu or cuda.
        built: The file is there.
        loadable: A session ran the operator from it, and the result was right.
        reason: Why not, empty where everything is well.
        path: The file, whether it exists or not.
        ran_on: The execution provider of that session, empty where there was none.
    """

    SCHEMA: ClassVar[str] = "jr_onnx.library_status/1"
    target: Target
    built: bool
    loadable: bool
    reason: str
    path: str
    ran_on: str = ""


def library_path(target: Target) -> Path:
    """Return the op library of a target.

    Raises:
        OpLibraryError: It is not built; the hint says what to do.
        InputError: The target is unknown.
    """
    path = _expected_path(target)
    if not path.is_file():
        reason = _why_not_built(target)
        raise OpLibraryError(
            f"the op library {path.name} is not built" + (f" ({reason})" if reason else ""),
            hint=f"Install {_NEEDS[target]} and run {_REBUILD}, or use another lowering than custom",
        )
    return path


def register(session_options: SessionOptions, target: Target) -> Path:
    """Add the operators to the session options of ONNX Runtime.

    Args:
        session_options: An `onnxruntime.SessionOptions`.
        target: cpu, or cuda for sessions on either provider.

    Returns:
        The library that was registered.

    Raises:
        OpLibraryError: The library is not built, or ONNX Runtime cannot load it.
        InputError: The target is unknown.
    """
    path = library_path(target)
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:
        raise OpLibraryError(
            f"ONNX Runtime cannot load {path}: {one_line(error)}", hint=f"Rebuild it: {_REBUILD}"
        ) from error
    return path


def status(target: Target, provider: str = "CPUExecutionProvider") -> LibraryStatus:
    """Find out whether the library of a target is built and works, by running it.

    Args:
        target: cpu or cuda.
        provider: Where to run it. A CUDA library has kernels for both, and on the CPU shows nothing of the others.

    Raises:
        InputError: The target is unknown.
    """
    path = _expected_path(target)
    if not path.is_file():
        reason = _why_not_built(target) or f"not built; install {_NEEDS[target]} and run {_REBUILD}"
        return LibraryStatus(target, built=False, loadable=False, reason=reason, path=str(path))
    try:
        _run_probe(target, provider)
    except JrError as error:
        return LibraryStatus(target, built=True, loadable=False, reason=str(error), path=str(path))
    return LibraryStatus(target, built=True, loadable=True, reason="", path=str(path), ran_on=provider)


def require_blocks() -> None:
    """Make sure that the library for the CPU takes blocks of channels into account, by running it.

    One of an earlier version would ignore the attribute and give channels each other's kappas.

    Raises:
        OpLibraryError: It does not, is not built, or does not run.
    """
    path = library_path("cpu")
    if not _runs_blocks(str(path), path.stat().st_mtime_ns):
        raise OpLibraryError(f"the op library {path} is older than this package", hint=f"Rebuild it: {_REBUILD}")


@functools.cache
def _runs_blocks(_path: str, _changed: int) -> bool:
    """Tell whether the library's JumpRelu gives channels in blocks of 2 their own kappas, once for each library.

    Raises:
        OpLibraryError: It does not run.
    """
    from onnx import TensorProto, helper

    shapes = {"z": [1, 2, 1, 2], "kappa": [2, 1, 1], "y": [1, 2, 1, 2]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    node = helper.make_node(OP_TYPE, ["z", "kappa"], ["y"], domain=OP_DOMAIN)
    node.attribute.append(helper.make_attribute(BLOCK_ATTRIBUTE, 2))
    kappas, twos = np.array([1, 3], np.float32).reshape(2, 1, 1), np.full(shapes["z"], 2, np.float32)
    result = _run("cpu", "CPUExecutionProvider", _model_of(node, values[:2], values[2:]), {"z": twos, "kappa": kappas})
    return bool(result.reshape(-1).tolist() == [2, 0, 2, 0])


def _expected_path(target: str) -> Path:
    if target not in TARGETS:
        raise InputError(f"the op library target is {target!r}, expected one of {', '.join(TARGETS)}")
    return _folder() / f"libjr_onnx_{target}.so"


def _folder() -> Path:
    given = os.environ.get(_FOLDER_VARIABLE, "")
    return Path(given) if given else _FOLDER


def _why_not_built(target: str) -> str:
    """Return what `setup.py` wrote down, or nothing."""
    try:
        report = json.loads((_folder() / _REPORT).read_text(encoding="utf-8"))
        return str(report[target].get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _run_probe(target: Target, provider: str) -> None:
    """Run one JumpRelu and compare with the definition.

    Raises:
        JrError: It does not load, does not run, or computes something else.
    """
    kappa = round_kappa(_PROBE_KAPPA, "float32")
    above = np.nextafter(np.float32(kappa), np.float32(1))
    z = np.array([-1.0, -0.0, kappa, above, 2.0, np.nan, np.inf, -np.inf], dtype=np.float32)
    result = _run(target, provider, _probe_model(), {"z": z})
    if result.tobytes() != jump_relu(z, kappa).tobytes():
        raise OpLibraryError(
            f"{OP_DOMAIN}::{OP_TYPE} computes {result.tolist()} for {z.tolist()} at kappa {kappa}",
            hint=f"Rebuild it: {_REBUILD}",
        )


def _run(target: Target, provider: str, model: bytes, feed: Mapping[str, Array]) -> Array:
    """Return the first output of a model of the library's operators.

    Raises:
        JrError: ONNX Runtime is not installed, or the library does not load or does not run.
    """
    onnxruntime = require("onnxruntime", "cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the reason is in the exception
    options.intra_op_num_threads = 1
    register(options, target)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
        result: Array = session.run(None, feed)[0]
    except Exception as error:
        raise OpLibraryError(f"a session with {OP_DOMAIN}::{OP_TYPE} fails: {one_line(error)}") from error
    return result


def _probe_model() -> bytes:
    """Return a model of one JumpRelu(z) with z of shape (N,), float32."""
    from onnx import TensorProto, helper

    node = helper.make_node(OP_TYPE, ["z"], ["y"], domain=OP_DOMAIN, kappa=_PROBE_KAPPA)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("z", "y")]
    return _model_of(node, values[:1], values[1:])


def _model_of(
    node: onnx.NodeProto, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> bytes:
    """Return a model of one node of the library."""
    from onnx import helper

    graph = helper.make_graph([node], "probe", inputs, outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
