"""An IOBinding that notes whether the caller bound kappa, and gives kappa one place where graphs are captured."""

from __future__ import annotations

from typing import Any

from jr_onnx.element_types import Array
from jr_onnx.errors import require
from jr_onnx.runtime import entropy

_ort: Any = require("onnxruntime", "cpu")


class KappaBinding(_ort.IOBinding):  # type: ignore[misc] # onnxruntime has no type information
    """ONNX Runtime's IOBinding, which remembers what was done with it.

    Attributes:
        has_kappa: The kappa input was bound by the caller.
        changes: How often the caller bound or cleared something.

    Args:
        session: The session.
        kappa_input: Its kappa input, None without one.
        device: The GPU that a captured graph reads kappa from: kappa stays at one place there, for a replay does not
            look at what was bound since. None where the session captures nothing.
    """

    def __init__(self, session: object, kappa_input: str | None, device: int | None = None) -> None:
        super().__init__(session)
        self._kappa_input = kappa_input
        self._device = device
        self._place: Any = None
        self.changes = 0
        self.has_kappa = False

    def bind_cpu_input(self, name: str, arr_on_cpu: object) -> None:
        """Bind an array; see ONNX Runtime's method of this name.

        Raises:
            KappaError: It is the kappa input, and the array holds no kappa.
        """
        if name != self._kappa_input:
            self.changes += 1
            super().bind_cpu_input(name, arr_on_cpu)
            return
        self.has_kappa = True
        self.set_kappa(name, entropy.checked(arr_on_cpu, name))

    def set_kappa(self, name: str, kappa: Array) -> None:
        """Let the next run use this kappa, a float32 scalar."""
        if self._place is not None:
            self._place.update_inplace(kappa)
        elif self._device is None:
            bind_kappa(self, name, kappa)
        else:
            self._place = _ort.OrtValue.ortvalue_from_numpy(kappa, "cuda", self._device)
            super().bind_ortvalue_input(name, self._place)

    def bind_input(self, name: str, *arguments: object, **keywords: object) -> None:
        """Bind memory; see ONNX Runtime's method of this name."""
        self._note(name)
        super().bind_input(name, *arguments, **keywords)

    def bind_ortvalue_input(self, name: str, ortvalue: object) -> None:
        """Bind an OrtValue; see ONNX Runtime's method of this name."""
        self._note(name)
        super().bind_ortvalue_input(name, ortvalue)

    def bind_output(self, name: str, *arguments: object, **keywords: object) -> None:
        """Bind memory; see ONNX Runtime's method of this name."""
        self._note(name)
        super().bind_output(name, *arguments, **keywords)

    def bind_ortvalue_output(self, name: str, ortvalue: object) -> None:
        """Bind an OrtValue; see ONNX Runtime's method of this name."""
        self._note(name)
        super().bind_ortvalue_output(name, ortvalue)

    def clear_binding_inputs(self) -> None:
        """Forget the inputs; see ONNX Runtime's method of this name."""
        self._note("")
        self.has_kappa, self._place = False, None
        super().clear_binding_inputs()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs; see ONNX Runtime's method of this name."""
        self._note("")
        super().clear_binding_outputs()

    def _note(self, name: str) -> None:
        self.changes += 1
        if name == self._kappa_input:
            self.has_kappa, self._place = True, None


def bind_kappa(binding: object, name: str, kappa: Array) -> None:
    """Bind a scalar to the kappa input; ONNX Runtime binds arrays only to inputs that have no default."""
    _ort.IOBinding.bind_ortvalue_input(binding, name, _ort.OrtValue.ortvalue_from_numpy(kappa))
