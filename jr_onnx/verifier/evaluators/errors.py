"""Why an evaluator does not compute a model."""

from __future__ import annotations

from jr_onnx.errors import JrError


class CannotLoadError(JrError):
    """An evaluator cannot load a model: an operator, a type or a version it does not know."""


class LackingError(CannotLoadError):
    """This ONNX Runtime lacks what a model needs: a kernel, an operator, a version; the file may be sound."""


class NoKernelError(LackingError):
    """ONNX Runtime knows the operator and has no kernel for its type on this machine."""


class UnknownOperatorError(LackingError):
    """An operator that neither ONNX Runtime nor the file defines: its library, or its function, is missing."""


class TooNewError(LackingError):
    """An IR version or operator set that this ONNX Runtime does not know yet."""


class CannotRunError(JrError):
    """An evaluator loaded a model and failed while running it on these inputs."""
