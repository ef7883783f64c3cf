"""An IOBinding that notes whether the caller bound kappa."""

from __future__ import annotations

from typing import Any

from jr_onnx.errors import require
from jr_onnx.runtime import entropy

onnxruntime: Any = require("onnxruntime", "cpu")


class KappaBinding(onnxruntime.IOBinding):  # type: ignore[misc] # onnxruntime has no type information
    """ONNX Runtime's IOBinding; `has_kappa` tells whether the kappa input was bound by the caller."""

    def __init__(self, session: Any, kappa_input: str | None) -> None:
        super().__init__(session)
        self._kappa_input = kappa_input
        self.has_kappa = False

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Bind an array; see ONNX Runtime's method of this name.

        Raises:
            KappaError: It is the kappa input, and the array holds no kappa.
        """
        if name != self._kappa_input:
            super().bind_cpu_input(name, arr_on_cpu)
            return
        self.has_kappa = True
        bind_kappa(self, name, entropy.checked(arr_on_cpu, name))

    def bind_input(self, name: str, *arguments: Any, **keywords: Any) -> None:
        """Bind memory; see ONNX Runtime's method of this name."""
        self.has_kappa = self.has_kappa or name == self._kappa_input
        super().bind_input(name, *arguments, **keywords)

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        """Bind an OrtValue; see ONNX Runtime's method of this name."""
        self.has_kappa = self.has_kappa or name == self._kappa_input
        super().bind_ortvalue_input(name, ortvalue)

    def clear_binding_inputs(self) -> None:
        """Forget the inputs; see ONNX Runtime's method of this name."""
        self.has_kappa = False
        super().clear_binding_inputs()


def bind_kappa(binding: Any, name: str, kappa: Any) -> None:
    """Bind a scalar to the kappa input; ONNX Runtime binds arrays only to inputs that have no default."""
    onnxruntime.IOBinding.bind_ortvalue_input(binding, name, onnxruntime.OrtValue.ortvalue_from_numpy(kappa))
