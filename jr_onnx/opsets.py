"""The operator sets that a model imports, and the two names of the standard one.

This module imports no onnx: it only reads the fields of the messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from onnx import ModelProto, OperatorSetIdProto

STANDARD_DOMAINS: Final = ("", "ai.onnx")
_LARGEST_VERSION = 2**31 - 1  # onnx looks schemas up by a C int


def normal_domain(domain: str) -> str:
    """Return "" for both spellings of the standard domain."""
    return "" if domain in STANDARD_DOMAINS else domain


def opset_table(imports: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """Return domain -> version of a list of opset imports."""
    return {normal_domain(entry.domain): min(int(entry.version), _LARGEST_VERSION) for entry in imports}


def main_opsets(model: ModelProto) -> dict[str, int]:
    """Return domain -> version of the main graph."""
    opsets = opset_table(model.opset_import)
    if "" not in opsets and model.ir_version < 3:
        opsets[""] = 1  # before IR 3 there were no imports, and operator set 1 was meant
    return opsets


def main_opset(model: ModelProto) -> int:
    """Return the version of the standard domain in the main graph; 0 where it is not imported."""
    return main_opsets(model).get("", 0)
