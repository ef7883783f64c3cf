"""What both transports do: look up models, decode, answer; kserve's data plane without its detours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jr_onnx._version import __version__
from jr_onnx.serve.batching import Outputs
from jr_onnx.serve.call import Call
from jr_onnx.serve.codec_rest import decode, json_length
from jr_onnx.serve.kserve_import import kserve_module
from jr_onnx.serve.model import ServedModel
from jr_onnx.serve.options import Limits
from jr_onnx.serve.repository import Registry

_dataplane: Any = kserve_module("kserve.protocol.dataplane")
LENGTH_HEADER = "inference-header-content-length"


class DataPlane(_dataplane.DataPlane):  # type: ignore[misc] # kserve has no type information
    """kserve's data plane for the models of a registry.

    Args:
        registry: The models.
        limits: How much a request may ask for.

    Attributes:
        draining: The server is about to stop: it still answers, but is not ready.
    """

    def __init__(self, registry: Registry, limits: Limits) -> None:
        super().__init__(registry)
        self._registry = registry
        self._limits = limits
        self.draining = False

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a loaded model; see `Registry.find`."""
        return self._registry.find(name, version)

    def metadata(self) -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        return {"name": "jr-onnx", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}

    async def model_metadata(self, model_name: str, version: str = "") -> dict[str, Any]:
        """Return the metadata of a model; a hidden kappa input is not in it."""
        model = self.find(model_name, version)
        return {
            "name": model.name,
            "versions": [other.version for other in self._registry.all() if other.name == model.name],
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

    def decode_inference_request(self, body: bytes, headers: Mapping[str, str], model_name: str) -> Call:
        """Read a REST request; kserve's own way turns every tensor into a Python list."""
        header = headers.get(LENGTH_HEADER)
        length = json_length(header.encode() if header is not None else None, len(body), self._limits.json_bytes)
        return decode(self.find(model_name).face, body, length)

    async def infer(
        self, model_name: str, request: Call, headers: Any = None, version: str = ""
    ) -> tuple[Outputs, dict[str, str]]:
        """Answer a checked request."""
        return await self.find(model_name, version)(request, headers)
