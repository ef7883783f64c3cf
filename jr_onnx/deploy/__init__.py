"""Packages for inference servers: Triton repositories, KServe manifests, compose files, and their integrity.

The public names are imported on first use, so that checking a package imports no onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jr_onnx.deploy.compose import ComposeOptions, Publish, package_compose
    from jr_onnx.deploy.deployment import Deployed, Resources, Trust
    from jr_onnx.deploy.kserve import KServeOptions, Scaling, package_kserve
    from jr_onnx.deploy.manifest import Manifest
    from jr_onnx.deploy.options import Batching, OpLibrary, Placement, TritonOptions, WarmUp
    from jr_onnx.deploy.triton import Packaged, package_triton
    from jr_onnx.deploy.verification import VerifiedPackage, expect_packages, verify

_PUBLIC = {
    "Batching": "jr_onnx.deploy.options",
    "ComposeOptions": "jr_onnx.deploy.compose",
    "Deployed": "jr_onnx.deploy.deployment",
    "KServeOptions": "jr_onnx.deploy.kserve",
    "Manifest": "jr_onnx.deploy.manifest",
    "OpLibrary": "jr_onnx.deploy.options",
    "Packaged": "jr_onnx.deploy.triton",
    "Placement": "jr_onnx.deploy.options",
    "Publish": "jr_onnx.deploy.compose",
    "Resources": "jr_onnx.deploy.deployment",
    "Scaling": "jr_onnx.deploy.kserve",
    "Trust": "jr_onnx.deploy.deployment",
    "TritonOptions": "jr_onnx.deploy.options",
    "VerifiedPackage": "jr_onnx.deploy.verification",
    "WarmUp": "jr_onnx.deploy.options",
    "expect_packages": "jr_onnx.deploy.verification",
    "package_compose": "jr_onnx.deploy.compose",
    "package_kserve": "jr_onnx.deploy.kserve",
    "package_triton": "jr_onnx.deploy.triton",
    "verify": "jr_onnx.deploy.verification",
}

__all__ = [
    "Batching",
    "ComposeOptions",
    "Deployed",
    "KServeOptions",
    "Manifest",
    "OpLibrary",
    "Packaged",
    "Placement",
    "Publish",
    "Resources",
    "Scaling",
    "TritonOptions",
    "Trust",
    "VerifiedPackage",
    "WarmUp",
    "expect_packages",
    "package_compose",
    "package_kserve",
    "package_triton",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
