"""Where ONNX Runtime computes during a verification: on the CPU, or on CUDA.

Equality is a fair demand only where the same operation gives the same bits every time. So CUDA computes with TF32 off,
deterministic kernels, and the algorithms that cuDNN's heuristics name for a shape. (ONNX Runtime's own default tries
algorithms out and takes the fastest, which may be another one in the next session; its DEFAULT is cuDNN's fallback
mode, of which it warns that it may be extremely slow.) What will be served has TF32 on and the fastest algorithms;
`tf32` is that setting, and is held to bounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final, Literal

from jr_onnx.runtime.ops_library import Target
from jr_onnx.runtime.providers import CPU, CUDA, ProviderChoice

Device = Literal["cpu", "cuda"]
DEVICES: Final[tuple[Device, ...]] = ("cpu", "cuda")
_SAME_BITS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
_AS_SERVED: Final = {"use_tf32": "1"}
_current: ContextVar[Device] = ContextVar("device", default="cpu")


@contextlib.contextmanager
def on_device(device: Device) -> Iterator[None]:
    """Have every session of a verification that is made meanwhile compute there."""
    before = _current.set(device)
    try:
        yield
    finally:
        _current.reset(before)


def is_cuda() -> bool:
    """Whether sessions compute on CUDA."""
    return _current.get() == "cuda"


def provider() -> str:
    """Return ONNX Runtime's name of the provider that computes."""
    return CUDA if is_cuda() else CPU


def target() -> Target:
    """Return which op library sessions need."""
    return _current.get()


def providers(*, tf32: bool = False) -> list[ProviderChoice]:
    """Return the providers of a session, as ONNX Runtime takes them."""
    if not is_cuda():
        return [CPU]
    return [(CUDA, dict(_AS_SERVED if tf32 else _SAME_BITS)), CPU]
