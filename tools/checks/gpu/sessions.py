"""Sessions, small models and profiles that the checks share."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from jr_onnx.errors import JrError
from jr_onnx.runtime.ops_library import Target, library_path, register
from jr_onnx.runtime.providers import why_unusable
from jr_onnx.semantics import OP_DOMAIN, OP_TYPE, OP_VERSION

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


def has_gpu() -> bool:
    """Tell whether a session really runs on an NVIDIA GPU; a listed provider proves nothing."""
    return not why_unusable(CUDA)


def open_session(
    model: onnx.ModelProto, providers: list[Any], *, target: Target | None = None, optimise: bool = True,
    profile: Path | None = None, save: Path | None = None,
) -> Any:  # fmt: skip
    """Open a model.

    Args:
        model: The model.
        providers: As ONNX Runtime takes them.
        target: Op library to register.
        optimise: Whether ONNX Runtime optimises.
        profile: Prefix of a profile to write.
        save: Where to write the optimised model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if save is not None:
        options.optimized_model_filepath = str(save)
    if target is not None:
        register(options, target)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers, enable_fallback=0)


def built_target() -> Target:
    """Return the library that serves the GPU.

    Raises:
        OpLibraryError: It is not built.
    """
    library_path("cuda")
    return "cuda"


def elementwise(
    nodes: list[onnx.NodeProto], *, element: int = TensorProto.FLOAT, shape: tuple[int | str, ...] = ("N",),
    opset: int = 17,
) -> onnx.ModelProto:  # fmt: skip
    """Return a model from `x` to `y` of one type and shape."""
    values = [helper.make_tensor_value_info(name, element, list(shape)) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "check", values[:1], values[1:])
    imports = [helper.make_opsetid("", opset)]
    if any(node.domain == OP_DOMAIN for node in nodes):
        imports.append(helper.make_opsetid(OP_DOMAIN, OP_VERSION))
    return helper.make_model(graph, opset_imports=imports, ir_version=10 if opset > 20 else 8)


def jump_node(operand: str, result: str, **attributes: Any) -> onnx.NodeProto:
    """Return one JumpRelu of the op library."""
    return helper.make_node(OP_TYPE, [operand], [result], name=result, domain=OP_DOMAIN, **attributes)


def conv_model(activation: str, opset: int, **attributes: Any) -> onnx.ModelProto:
    """Return Conv, activation, Conv on (N, 8, 16, 16)."""
    random = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array((random.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32), name)
        for name in ("w1", "w2")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["z"], pads=[1] * 4),
        helper.make_node(activation, ["z"], ["a"], name="activation", **attributes),
        helper.make_node("Conv", ["a", "w2"], ["y"], pads=[1] * 4),
    ]
    model = elementwise(nodes, shape=("N", 8, 16, 16), opset=opset)
    model.graph.initializer.extend(weights)
    return model


def optimised_operators(model: onnx.ModelProto, providers: list[Any]) -> Counter[str]:
    """Return the operators that ONNX Runtime's optimiser leaves, copies between devices included."""
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(model, providers, save=path)
        return Counter(str(node.op_type) for node in onnx.load(str(path)).graph.node)


def providers_of_operators(
    model: onnx.ModelProto, providers: list[Any], feed: Mapping[str, Any], *, target: Target | None = None
) -> dict[str, str]:
    """Run a model and return on which provider each type of operator ran."""
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        session = open_session(model, providers, target=target, profile=Path(folder) / "profile")
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for event in events:
        details = event.get("args", {})
        if "provider" in details and "op_name" in details:
            found[details["op_name"]] = details["provider"]
    return found


def device_value(array: np.ndarray[Any, Any], device: str = "cuda") -> Any:
    """Return a copy of an array on a device."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)


def require_on(session: Any, provider: str) -> None:
    """Make sure that a session runs where it was asked to.

    Raises:
        JrError: It does not.
    """
    found = session.get_providers()[0]
    if found != provider:
        raise JrError(f"the session runs on {found}, expected {provider}")
