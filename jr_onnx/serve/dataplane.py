"""What both transports ask about models: which there are, what they look like, whether they are ready.

kserve's own way of decoding requests and answering them is not used: it turns every tensor into a Python list.
"""

from __future__ import annotations

from typing import Any

from jr_onnx._version import __version__
from jr_onnx.records import JsonValue
from jr_onnx.serve.extensions.names import EXTENSIONS
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.repository import Registry

_dataplane: Any = kserve_module("kserve.protocol.dataplane")


class DataPlane(_dataplane.DataPlane):  # type: ignore[misc] # kserve has no type information
    """kserve's data plane for the models of a registry.

    Args:
        registry: The models.

    Attributes:
        draining: The server is about to stop: it still answers, but is not ready.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._registry = registry
        self.draining = False

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a loaded model; see `Registry.find`."""
        return self._registry.find(name, version)

    def metadata(self) -> dict[str, JsonValue]:
        """Return name, version and extensions of the server."""
        return {"name": "jr-onnx", "version": __version__, "extensions": list(EXTENSIONS)}

    def all(self) -> list[ServedModel]:
        """Return every version of every loaded model."""
        return self._registry.all()

    async def model_metadata(self, model_name: str, version: str = "") -> dict[str, JsonValue]:
        """Return the metadata of a model; a hidden kappa input is not in it."""
        model = self.find(model_name, version)
        return {
            "name": model.name,
            "versions": [
                other.version
                for other in self._registry.all()
                if other.name == model.name and version in ("", other.version)
            ],
            "platform": "onnxruntime_onnx",
            "inputs": model.get_input_types(),
            "outputs": model.get_output_types(),
        }

    async def ready(self) -> bool:
        """Tell whether the server wants requests."""
        return not self.draining

    async def model_ready(self, model_name: str, version: str = "") -> bool:
        """Tell whether a model is loaded; see `Registry.find`."""
        return bool(self.find(model_name, version).ready)
