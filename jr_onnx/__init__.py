"""jr-onnx: retrofit JumpReLU into exported ONNX classifiers, and know what it buys.

The public names are imported on first use, so that `import jr_onnx` costs nothing.

ONNX Runtime's builds for Linux (from 1.29 on) send usage data and keep a device id under the user's cache, unless
ORT_DISABLE_TELEMETRY is set when it is imported. It is set here, for this process and those that it starts; with
ORT_DISABLE_TELEMETRY=0 in the environment it stays as it is, and the data is sent.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from jr_onnx._version import __version__

if TYPE_CHECKING:
    from jr_onnx.kappa import KappaPlan, RandomKappa
    from jr_onnx.rewriter import find_sites, restore, rewrite
    from jr_onnx.runtime.session import InferenceSession
    from jr_onnx.semantics import jump_relu
    from jr_onnx.verifier import verify
    from jr_onnx.weights import find_weights, save_weights

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "InferenceSession": "jr_onnx.runtime.session",
    "KappaPlan": "jr_onnx.kappa",
    "RandomKappa": "jr_onnx.kappa",
    "find_sites": "jr_onnx.rewriter",
    "find_weights": "jr_onnx.weights",
    "jump_relu": "jr_onnx.semantics",
    "restore": "jr_onnx.rewriter",
    "rewrite": "jr_onnx.rewriter",
    "save_weights": "jr_onnx.weights",
    "verify": "jr_onnx.verifier",
}

__all__ = [
    "InferenceSession",
    "KappaPlan",
    "RandomKappa",
    "__version__",
    "find_sites",
    "find_weights",
    "jump_relu",
    "restore",
    "rewrite",
    "save_weights",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
