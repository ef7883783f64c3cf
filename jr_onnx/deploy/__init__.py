"""Packages for inference servers: Triton repositories, KServe manifests, compose files, and their integrity.

The public names are imported on first use, so that checking a package imports no onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jr_onnx.deploy.manifest import Manifest, VerifiedPackage, verify
    from jr_onnx.deploy.options import Batching, OpLibrary, Placement, TritonOptions, WarmUp
    from jr_onnx.deploy.triton import Packaged, package_triton

_PUBLIC = {
    "Batching": "jr_onnx.deploy.options",
    "Manifest": "jr_onnx.deploy.manifest",
    "OpLibrary": "jr_onnx.deploy.options",
    "Packaged": "jr_onnx.deploy.triton",
    "Placement": "jr_onnx.deploy.options",
    "TritonOptions": "jr_onnx.deploy.options",
    "VerifiedPackage": "jr_onnx.deploy.manifest",
    "WarmUp": "jr_onnx.deploy.options",
    "package_triton": "jr_onnx.deploy.triton",
    "verify": "jr_onnx.deploy.manifest",
}

__all__ = [
    "Batching",
    "Manifest",
    "OpLibrary",
    "Packaged",
    "Placement",
    "TritonOptions",
    "VerifiedPackage",
    "WarmUp",
    "package_triton",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
