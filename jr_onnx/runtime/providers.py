"""Execution providers: which ones work here, and the error for a requested one that does not.

A provider counts as working only if a session created on it ran a node on it: onnxruntime-gpu lists CUDA on machines
without a GPU and falls back to the CPU silently.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from jr_onnx.errors import InputError, MissingExtraError, one_line, require
from jr_onnx.records import Record

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
ProviderChoice = str | tuple[str, Mapping[str, object]]
"""A provider as ONNX Runtime takes it: its name, or its name and options."""
ProviderOptions = Sequence[Mapping[str, object]]
"""Options of every provider, in the order of the providers."""
SHORT_NAMES: Final = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
CAPTURE: Final = "enable_cuda_graph"
"""The option of the CUDA provider with which it captures a run as a CUDA graph, and replays that."""
CUDA_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "fuse_conv_bias": {"fuse_conv_bias": "1"},
    "prefer_nhwc": {"prefer_nhwc": "1"},
    "both": {"fuse_conv_bias": "1", "prefer_nhwc": "1"},
    "tf32_off": {"use_tf32": "0"},
    "heuristic": {"cudnn_conv_algo_search": "HEURISTIC"},
    "graph": {CAPTURE: "1"},
    "graph_fused": {CAPTURE: "1", "fuse_conv_bias": "1"},
    "graph_both": {CAPTURE: "1", "fuse_conv_bias": "1", "prefer_nhwc": "1"},
}
"""Options of the CUDA provider by the name that the commands give them; `graph` captures and replays."""
_QUIET = 4  # fatal only: errors are reported in words
_WARNING = 2  # ONNX Runtime's own default


@dataclass(frozen=True, slots=True)
class Provider(Record):
    """An execution provider that ONNX Runtime lists, and whether nodes really run on it."""

    SCHEMA: ClassVar[str] = "jr_onnx.doctor_provider/1"
    name: str
    works: bool
    reason: str


def check_providers(wanted: Collection[str] | None = None) -> tuple[Provider, ...]:
    """Run a node on every execution provider that ONNX Runtime lists; empty without ONNX Runtime.

    Args:
        wanted: Look at these alone.
    """
    try:
        onnxruntime = require("onnxruntime", "cpu")
    except MissingExtraError:
        return ()
    names = [str(name) for name in onnxruntime.get_available_providers()]
    with _without_log(onnxruntime):
        _preload(onnxruntime, names)
        return tuple(_check_provider(onnxruntime, name) for name in names if wanted is None or name in wanted)


def _check_provider(onnxruntime: Any, name: str) -> Provider:
    """Create a session on one provider, run it, and look where its node ran."""
    with tempfile.TemporaryDirectory(prefix="jr-onnx-provider-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(_relu_model(), options, providers=[name], enable_fallback=0)
            created_on = session.get_providers()[0]
            session.run(None, {"x": np.array([-1.0, 1.0], dtype=np.float32)})
            ran_on = session.get_providers()[0]
            nodes_on = _profiled_providers(Path(session.end_profiling()))
        except Exception as error:  # noqa: BLE001 - whatever a provider throws is the finding
            return Provider(name, works=False, reason=one_line(error))
    if created_on != name or ran_on != name:
        return Provider(name, works=False, reason=f"a session asked for it runs on {ran_on}")
    if name not in nodes_on:
        return Provider(name, works=False, reason=f"its session ran the node on {', '.join(sorted(nodes_on))}")
    return Provider(name, works=True, reason="")


def _profiled_providers(path: Path) -> set[str]:
    events = json.loads(path.read_text(encoding="utf-8"))
    return {event["args"]["provider"] for event in events if "provider" in event.get("args", {})}


def _relu_model() -> bytes:
    """Return a model of one Relu(x) with x of shape (2,), float32."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _without_log(onnxruntime: Any) -> Iterator[None]:
    """Keep ONNX Runtime's log off the terminal: the report has it."""
    onnxruntime.set_default_logger_severity(_QUIET)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def full_name(name: str) -> str:
    """Return ONNX Runtime's name of a provider: of cpu, cuda and tensorrt, and any other name as it is."""
    return SHORT_NAMES.get(name.lower(), name)


def require_providers(names: Sequence[str], *, may_fall_back: bool = True) -> None:
    """Refuse execution providers that a session would silently do without; the CPU's is always there.

    Args:
        names: The providers.
        may_fall_back: Whether the hint names --allow-fallback, which not every command has.

    Raises:
        InputError: ONNX Runtime does not know one here, or a session on it does not run.
    """
    hint = "jr-onnx doctor says what a provider needs"
    hint += "; --allow-fallback goes on without it" if may_fall_back else ""
    for name in names:
        if name == CPU:
            continue
        known = [str(item) for item in require("onnxruntime", "cpu").get_available_providers()]
        if name not in known:
            raise InputError(
                f"ONNX Runtime has no provider {name!r} here, expected one of {', '.join(known)}", hint=hint
            )
        reason = why_unusable(name)
        if reason:
            raise InputError(f"the provider {name} is not usable here: {reason}", hint=hint)


def usable_providers(names: Sequence[str], warn: Callable[[str], None]) -> tuple[str, ...]:
    """Return those of some providers that work here, the CPU's where none does, and say which do not.

    Args:
        names: As a user named them, in order of preference.
        warn: Called with a line for each provider that is left out.

    Raises:
        InputError: A name is that of no provider, so it is misspelt rather than unusable.
    """
    every = [str(name) for name in require("onnxruntime", "cpu").get_all_providers()]
    kept: list[str] = []
    for name in names:
        if name not in every:
            raise InputError(f"there is no provider {name!r}, expected one of {', '.join((*SHORT_NAMES, *every))}")
        try:
            require_providers([name])
            kept.append(name)
        except InputError as error:
            warn(f"{error.message}; --allow-fallback was given, so this goes on without it")
    return tuple(kept) or (CPU,)


@functools.cache
def why_unusable(name: str) -> str:
    """Return why sessions do not run on a provider, "" where they do; looked at once in a process."""
    found = check_providers([name])
    if not found:
        return f"this ONNX Runtime has no {name}"
    return found[0].reason


def without_unusable_cuda(
    providers: Sequence[ProviderChoice] | None, provider_options: ProviderOptions | None
) -> tuple[Sequence[ProviderChoice] | None, ProviderOptions | None, str]:
    """Leave CUDA out of what a session is asked for where it does not work.

    Args:
        providers: As ONNX Runtime's session takes them; None for its own choice.
        provider_options: Their options.

    Returns:
        Providers and options without CUDA, and why it is left out; as they were, and "", where it works or is not
        asked for.
    """
    asked = providers or require("onnxruntime", "cpu").get_available_providers()
    names = [str(item[0]) if isinstance(item, tuple) else str(item) for item in asked]
    if CUDA not in names:
        return providers, provider_options, ""
    reason = why_unusable(CUDA)
    if not reason:
        return providers, provider_options, ""
    kept = [index for index, name in enumerate(names) if name != CUDA]
    rest = [asked[index] for index in kept] or [CPU]
    options = None if provider_options is None else [provider_options[index] for index in kept]
    return rest, options or None, reason


def prefers_nhwc(options: Mapping[str, object]) -> bool:
    """Tell whether the options of CUDA ask it to keep convolutions in the layout (N, H, W, C)."""
    return _is_on(options, "prefer_nhwc")


def captures_graphs(options: Mapping[str, object]) -> bool:
    """Tell whether the options of CUDA ask it to capture a run as a CUDA graph, and to replay that."""
    return _is_on(options, CAPTURE)


def _is_on(options: Mapping[str, object], name: str) -> bool:
    return str(options.get(name, "0")) in ("1", "True", "true")


def device_id(options: Mapping[str, Mapping[str, str]]) -> int:
    """Return the number of the GPU of a session on CUDA.

    Args:
        options: The session's `get_provider_options()`.
    """
    return int(options.get(CUDA, {}).get("device_id", 0))


def cuda_options(
    providers: Sequence[ProviderChoice] | None, provider_options: ProviderOptions | None
) -> dict[str, object]:
    """Return the options that a session gives to CUDA; none where it does not ask for it.

    Args:
        providers: As ONNX Runtime's session takes them.
        provider_options: Their options.
    """
    named = [item if isinstance(item, tuple) else (item, {}) for item in providers or ()]
    asked = [*named, *zip([name for name, _ in named], provider_options or (), strict=False)]
    return {key: value for name, options in asked if name == CUDA for key, value in options.items()}


def _preload(onnxruntime: Any, names: Collection[str]) -> None:
    """Load the CUDA libraries that came as Python packages; the provider finds those that are loaded already."""
    if CUDA in names and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
