"""Sessions and the op library; imports onnxruntime only when something runs, and never torch."""

from __future__ import annotations

from jr_onnx.runtime.ops_library import LibraryStatus, Target, library_path, register, status

__all__ = ["LibraryStatus", "Target", "library_path", "register", "status"]
