"""Let a package be called like the function that carries its name: `jr_onnx.rewrite(...)`.

Python binds a sub-package as an attribute of its parent when it is imported, and so hides a function of that name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def make_callable(module_name: str, function_name: str) -> None:
    """Make a module callable; a call goes to its function of the given name."""

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(self, function_name)(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
